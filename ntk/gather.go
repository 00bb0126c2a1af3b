package ntk

import (
	"context"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// factors are what the gradients of one block follow from: its MLP's input x and
// the gradient dy of f at its output, both tokens×hidden.
type factors struct {
	x, dy   []float32
	offsets []int32 // where each example's tokens begin, and the end
}

func (f *factors) examples() int { return len(f.offsets) - 1 }

// single tells whether every example has one token, as in a classifier's last
// block, which only the first token of a sequence goes through.
func (f *factors) single() bool { return int(f.offsets[f.examples()]) == f.examples() }

// passTokens is the number of tokens of a pass through the model. A pass keeps
// every tensor and every gradient, so that it must not be large; the products
// gain nothing from more rows.
const passTokens = 256

// gather runs the model and its backward pass on the examples and returns the
// factors of each block.
func gather(ctx context.Context, pool *kernel.Pool, m *model.Model, in *model.Input, blocks []int, progress func(string, float64)) ([]*factors, error) {
	defer freeze(m, blocks)()
	tape := nn.NewTape(pool)
	tape.Train, tape.KeepGrads = true, true
	all := make([]*factors, len(blocks))
	n := len(in.Offsets) - 1
	for from, to := 0, 0; from < n; from = to {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		progress("", float64(from)/float64(n))
		to = passEnd(in, from)
		part := in.Slice(from, to)
		tape.Reset(0)
		m.Loss(tape, nn.KernelFunction, part, nil)
		tape.Backward()
		for i, b := range blocks {
			mlp := m.Blocks[b].MLP
			if all[i] == nil {
				tokens := len(in.IDs)
				if mlp.X.Rows < len(part.IDs) {
					tokens = n
				}
				size := tokens * m.Config.Hidden
				all[i] = &factors{x: make([]float32, 0, size), dy: make([]float32, 0, size), offsets: []int32{0}}
			}
			all[i].add(mlp)
		}
		if from == 0 {
			release() // of what the tape has outgrown
		}
	}
	progress("", 1)
	return all, nil
}

// add appends the factors of the pass that has just run.
func (f *factors) add(mlp *model.MLP) {
	f.x = append(f.x, mlp.X.Data...)
	f.dy = append(f.dy, mlp.Y.Grad...)
	first := f.offsets[len(f.offsets)-1]
	for _, end := range mlp.Offsets[1:] {
		f.offsets = append(f.offsets, first+end)
	}
}

// passEnd returns the end of the pass that begins with example from.
func passEnd(in *model.Input, from int) int {
	to := from + 1
	for to < len(in.Offsets)-1 && in.Offsets[to+1]-in.Offsets[from] <= passTokens {
		to++
	}
	return to
}

// freeze turns dropout off and freezes all weights but the first linear layer of
// the shallowest of the blocks, so that a backward pass goes down to there and
// computes no other parameter's gradient. The function it returns undoes that.
func freeze(m *model.Model, blocks []int) (undo func()) {
	first := m.Blocks[blocks[0]]
	for _, b := range blocks {
		if m.Blocks[b].Depth < first.Depth {
			first = m.Blocks[b]
		}
	}
	up := first.MLP.Up.W
	if first.MLP.UpV != nil {
		up = first.MLP.UpV.W
	}
	frozen := make([]bool, len(m.Weights))
	for i, w := range m.Weights {
		frozen[i] = w.Frozen
		w.Frozen = w != up
	}
	c := m.Config
	drop := c.Dropout
	c.Dropout = model.Dropout{}
	return func() {
		for i, w := range m.Weights {
			w.Frozen = frozen[i]
		}
		up.ZeroGrad()
		c.Dropout = drop
	}
}
