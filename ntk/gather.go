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

func (f *factors) tokens() int { return int(f.offsets[f.examples()]) }

// single tells whether every example has one token, as in a classifier's last
// block, which only the first token of a sequence goes through.
func (f *factors) single() bool {
	for i, end := range f.offsets[1:] {
		if int(end) != i+1 {
			return false
		}
	}
	return true
}

// passTokens is the number of tokens of a pass through the model. A pass keeps
// every tensor and every gradient, so that it must not be large; the products
// gain nothing from more rows.
const passTokens = 512

// gather runs the model and its backward pass on the examples and returns the
// factors of each block.
func gather(ctx context.Context, pool *kernel.Pool, m *model.Model, in *model.Input, blocks []int, progress func(string, float64)) ([]*factors, error) {
	defer watch(m, blocks)()
	tape := nn.NewTape(pool)
	tape.Train = true
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
		for _, b := range blocks { // no token may reach an expert
			mlp := m.Blocks[b].MLP
			mlp.X, mlp.Y, mlp.Offsets = nil, nil, nil
		}
		m.Loss(tape, nn.KernelFunction, part, nil)
		tape.Backward()
		for i, b := range blocks {
			mlp := m.Blocks[b].MLP
			if all[i] == nil {
				all[i] = newFactors(in, part, mlp, m.Config.Hidden)
			}
			all[i].add(mlp, to-from)
		}
		if from == 0 {
			release() // of what the tape has outgrown
		}
	}
	progress("", 1)
	return all, nil
}

// newFactors has room for the whole of in, going by its first part.
func newFactors(in, part *model.Input, mlp *model.MLP, hidden int) *factors {
	n, examples := len(in.Offsets)-1, len(part.Offsets)-1
	rows := 0
	if mlp.X != nil {
		rows = mlp.X.Rows * n / examples
		if mlp.X.Rows == len(part.IDs) {
			rows = len(in.IDs)
		}
	}
	return &factors{x: make([]float32, 0, rows*hidden), dy: make([]float32, 0, rows*hidden), offsets: append(make([]int32, 0, n+1), 0)}
}

// add appends the factors of a pass over some examples that has just run. Those
// without a token in the MLP have a gradient of zero.
func (f *factors) add(mlp *model.MLP, examples int) {
	first := f.offsets[len(f.offsets)-1]
	if mlp.Offsets == nil {
		for range examples {
			f.offsets = append(f.offsets, first)
		}
		return
	}
	f.x = append(f.x, mlp.X.Data...)
	f.dy = append(f.dy, mlp.Y.Grad...)
	for range len(f.x) - len(f.dy) { // nothing read the output
		f.dy = append(f.dy, 0)
	}
	for _, end := range mlp.Offsets[1:] {
		f.offsets = append(f.offsets, first+end)
	}
}

// passEnd returns the end of the pass that begins with example from.
func passEnd(in *model.Input, from int) int {
	tokens := func(to int) int {
		n := in.Offsets[to] - in.Offsets[from]
		if in.DecoderOffsets != nil {
			n += in.DecoderOffsets[to] - in.DecoderOffsets[from]
		}
		return int(n)
	}
	to := from + 1
	for to < len(in.Offsets)-1 && tokens(to+1) <= passTokens {
		to++
	}
	return to
}

// watch turns dropout off, freezes all weights and watches the blocks, so that a
// backward pass goes down to the output of the shallowest of them and computes no
// parameter's gradient. The function it returns undoes that.
func watch(m *model.Model, blocks []int) (undo func()) {
	frozen := make([]bool, len(m.Weights))
	for i, w := range m.Weights {
		frozen[i], w.Frozen = w.Frozen, true
	}
	for _, b := range blocks {
		m.Blocks[b].MLP.Watched = true
	}
	c := m.Config
	drop := c.Dropout
	c.Dropout = model.Dropout{}
	return func() {
		for i, w := range m.Weights {
			w.Frozen = frozen[i]
		}
		for _, b := range blocks {
			m.Blocks[b].MLP.Watched = false
		}
		c.Dropout = drop
	}
}
