package nn

import (
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/kernel"
)

// TestLinears checks that layers run together give, to the last bit, what Linear
// gives one by one: outputs, gradients of inputs and of weights and biases, one of
// which two of them share, one frozen and one masked.
func TestLinears(t *testing.T) {
	const in, out = 20, 12
	r := rand.New(rand.NewPCG(3, 4))
	fill := func(x []float32) []float32 {
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		return x
	}
	var layers []*Linear
	for range 3 {
		l := &Linear{W: NewWeight(out, in), B: NewWeight(1, out)}
		fill(l.W.Data)
		fill(l.B.Data)
		layers = append(layers, l)
	}
	layers = append(layers, layers[0])
	layers[1].W.Frozen = true
	layers[2].W.Masked = true
	clear(layers[2].W.Data[:in])
	scales := [][]float32{fill(make([]float32, out)), nil, fill(make([]float32, out)), nil}
	rows := []int{7, 1, 30, 4}
	var inputs, grads [][]float32
	for _, n := range rows {
		inputs, grads = append(inputs, fill(make([]float32, n*in))), append(grads, fill(make([]float32, n*out)))
	}
	run := func(workers int, together bool) (all [][]float32) {
		pool := kernel.NewPool(workers)
		defer pool.Close()
		tape := NewTape(pool)
		tape.Train = true
		for step := range 2 { // the second on memory that the first has used
			tape.Reset(step)
			all = nil
			xs, ys := make([]*Tensor, len(rows)), make([]*Tensor, len(rows))
			for i, l := range layers {
				l.W.ZeroGrad()
				l.B.ZeroGrad()
				xs[i] = &Tensor{Rows: rows[i], Cols: in, Data: inputs[i]}
			}
			if together {
				ys = tape.Linears(ys[:0], xs, layers, kernel.GELU, scales)
			} else {
				for i := len(xs) - 1; i >= 0; i-- { // so that the backward pass begins with the first
					ys[i] = tape.Linear(xs[i], layers[i], kernel.GELU, scales[i])
				}
			}
			for i, y := range ys {
				y.Grad = slices.Clone(grads[i])
			}
			tape.Backward()
			for i, l := range layers {
				all = append(all, slices.Clone(ys[i].Data), xs[i].Grad)
				if !l.W.Frozen {
					all = append(all, slices.Clone(l.W.Grad))
				}
				all = append(all, slices.Clone(l.B.Grad))
			}
		}
		return all
	}
	want := run(1, false)
	for _, workers := range []int{1, 2} {
		for i, got := range run(workers, true) {
			if !slices.Equal(got, want[i]) {
				t.Errorf("%d workers: result %d differs from that of Linear", workers, i)
			}
		}
	}
	if dw := want[len(want)-6]; slices.ContainsFunc(dw[:in], func(v float32) bool { return v != 0 }) {
		t.Error("a masked weight's zeros have a gradient")
	}
}
