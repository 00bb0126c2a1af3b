package nn

import (
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestRecompute compares layers that are run again in the backward pass, one within
// another too, with the same layers kept: results, gradients and the next dropout mask to
// the last bit, from less memory.
func TestRecompute(t *testing.T) {
	const rows, hidden, units, layers = 40, 16, 400, 4
	rng := rand.New(rand.NewPCG(3, 5))
	pool := kernel.NewPool(2)
	defer pool.Close()
	x0, dy := normal(rng, rows*hidden, 1), normal(rng, rows*hidden, 1)
	type layer struct {
		norm     *RMSNorm
		up, down *Linear
	}
	var net []layer
	var weights []*Weight
	weight := func(r, c int) *Weight {
		w := NewWeight(r, c)
		copy(w.Data, normal(rng, r*c, 0.3))
		weights = append(weights, w)
		return w
	}
	for range layers {
		net = append(net, layer{&RMSNorm{Gain: weight(1, hidden), Eps: 1e-5}, &Linear{W: weight(units, hidden), B: weight(1, units)}, &Linear{W: weight(hidden, units)}})
	}
	run := func(again bool) (results [][]float32, memory int) {
		tape := NewTape(pool)
		tape.Train, tape.Seed = true, 7
		tape.Reset(1)
		for _, w := range weights {
			w.ZeroGrad()
		}
		input := tape.New(rows, hidden)
		copy(input.Data, x0)
		one := func(x *Tensor, l layer) *Tensor {
			h := tape.Dropout(tape.Linear(tape.RMSNorm(x, l.norm), l.up, kernel.GELU, nil), 0.1)
			return tape.Add(tape.Linear(h, l.down, kernel.Identity, nil), x, 0.2)
		}
		x := input
		for i, l := range net[:layers-1] {
			f := func(x *Tensor) *Tensor { return one(x, l) }
			switch {
			case !again:
				x = f(x)
			case i == 1:
				x = tape.Recompute(x, func(x *Tensor) *Tensor { return tape.Recompute(x, f) })
			default:
				x = tape.Recompute(x, f)
			}
		}
		used := tape.arenas[0]
		x = one(x, net[layers-1])
		x.Grad = slices.Clone(dy)
		results = append(results, slices.Clone(x.Data))
		tape.Backward()
		results = append(results, slices.Clone(input.Grad))
		for _, w := range weights {
			results = append(results, slices.Clone(w.Grad))
		}
		for _, b := range used.blocks[:used.at] {
			memory += b.size
		}
		return results, memory + used.used
	}
	want, kept := run(false)
	got, least := run(true)
	for i := range want {
		golden.Near(t, "a result", got[i], want[i], 0)
	}
	if least > kept/4 {
		t.Errorf("%d floats are kept of three layers run again, %d of such that are not", least, kept)
	}
}
