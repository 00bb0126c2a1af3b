package convert

import (
	"context"
	"fmt"
	"slices"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// RouterUse is what the router of one mixture of experts did with texts.
type RouterUse struct {
	model.Usage
	// Original is what it did in the model that was compressed, on the same
	// texts, and Same how often both sent a token to one expert.
	Original *model.Usage `json:"original,omitempty"`
	Same     int64        `json:"same,omitempty"`
}

// Routers runs texts through the model, and beside it through the original where
// that is not nil, a layer at a time, and returns what the routers did, in order of
// depth. Jitter and dropout are off, as in evaluation. progress, which may be nil, is
// told the batches done of all layers.
func Routers(ctx context.Context, pool *kernel.Pool, m, original model.Parts, batches []model.Input, progress func(done, total int)) ([]RouterUse, error) {
	models := []*walk{{parts: m}}
	if original != nil {
		models = append(models, &walk{parts: original})
	}
	for _, w := range models {
		w.tape = nn.NewTape(pool)
		defer func() { w.states.close(); w.next.close() }()
	}
	cfg, blocks := m.Statement()
	at := mixtures(blocks)
	if original != nil {
		_, blocks := original.Statement()
		if a, b := len(at), len(mixtures(blocks)); a != b {
			return nil, fmt.Errorf("expected the model that was compressed, found one with %d mixtures of experts where there are %d", b, a)
		}
	}
	uses := make([]RouterUse, len(at))
	for depth := -1; depth < cfg.Depth(); depth++ {
		for _, w := range models {
			if err := w.open(depth); err != nil {
				return nil, err
			}
		}
		for i := range batches {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			for _, w := range models {
				if err := w.step(depth, i, &batches[i]); err != nil {
					return nil, err
				}
			}
			for k := range uses {
				if at[k] == depth && original != nil {
					uses[k].Same += same(models[0].part.Routings()[k], models[1].part.Routings()[k])
				}
			}
			if progress != nil {
				progress((depth+1)*len(batches)+i+1, (cfg.Depth()+1)*len(batches))
			}
		}
		for k := range uses {
			if at[k] != depth {
				continue
			}
			uses[k].Usage = models[0].usage(k)
			if original != nil {
				before := models[1].usage(k)
				uses[k].Original = &before
			}
		}
	}
	return uses, nil
}

// mixtures returns the depth of each mixture of experts.
func mixtures(blocks []*model.Block) (depths []int) {
	for _, b := range blocks {
		if b.Experts > 0 && b.Expert == 0 {
			depths = append(depths, b.Depth)
		}
	}
	return depths
}

// same counts the choices that two routers have in common, a token's in any order.
func same(a, b *nn.Routing) (n int64) {
	k := b.Router.TopK
	for i, e := range a.Expert {
		if token := i / k * k; slices.Contains(b.Expert[token:token+k], e) {
			n++
		}
	}
	return n
}

// walk is a model on its way through the texts.
type walk struct {
	parts  model.Parts
	part   *model.Model
	tape   *nn.Tape
	states states // before the layer
	next   states // behind it, so far
}

// open goes to a layer; its router counts anew.
func (w *walk) open(depth int) (err error) {
	w.states.close()
	w.states, w.next, w.part = w.next, states{}, nil
	if w.part, err = w.parts.Part(depth); err == nil {
		w.part.ClearUsage()
	}
	return err
}

// step brings a batch through the layer, or through the embeddings.
func (w *walk) step(depth, i int, in *model.Input) (err error) {
	w.tape.Reset(0)
	var x model.State
	if depth < 0 {
		if err = w.part.Check(in); err == nil {
			x = w.part.Embed(w.tape, in)
		}
	} else if x, err = w.states.read(w.tape, i, w.part.Config.Hidden); err == nil {
		x = w.part.Layer(w.tape, depth, x, in)
	}
	if err != nil {
		return err
	}
	return w.next.write(x)
}

// usage is what router k has done.
func (w *walk) usage(k int) model.Usage {
	u := w.part.Usage()[k]
	return model.Usage{Name: u.Name, Tokens: slices.Clone(u.Tokens), Dropped: u.Dropped}
}
