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
// that is not nil, and returns what the routers did, in order of depth. Jitter
// and dropout are off, as in evaluation. progress, which may be nil, is told the
// batches done.
func Routers(ctx context.Context, pool *kernel.Pool, m, original *model.Model, batches []model.Input, progress func(done, total int)) ([]RouterUse, error) {
	models, tapes := []*model.Model{m}, []*nn.Tape{nn.NewTape(pool)}
	if original != nil {
		models, tapes = append(models, original), append(tapes, nn.NewTape(pool))
		if a, b := len(m.Usage()), len(original.Usage()); a != b {
			return nil, fmt.Errorf("expected the model that was compressed, found one with %d mixtures of experts where there are %d", b, a)
		}
	}
	for _, m := range models {
		m.ClearUsage()
	}
	uses := make([]RouterUse, len(m.Usage()))
	for i := range batches {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var routings [2][]*nn.Routing
		for k, m := range models {
			if err := m.Check(&batches[i]); err != nil {
				return nil, err
			}
			tapes[k].Reset(0)
			m.ForwardAll(tapes[k], &batches[i], &model.Output{AllTokens: true})
			routings[k] = m.Routings()
		}
		for k, before := range routings[1] {
			now, n := routings[0][k].Expert, before.Router.TopK
			for j, e := range now {
				if token := j / n * n; slices.Contains(before.Expert[token:token+n], e) {
					uses[k].Same++
				}
			}
		}
		if progress != nil {
			progress(i+1, len(batches))
		}
	}
	counts := func(u *model.Usage) model.Usage {
		return model.Usage{Name: u.Name, Tokens: slices.Clone(u.Tokens), Dropped: u.Dropped}
	}
	for k := range uses {
		uses[k].Usage = counts(m.Usage()[k])
		if original != nil {
			before := counts(original.Usage()[k])
			uses[k].Original = &before
		}
	}
	return uses, nil
}
