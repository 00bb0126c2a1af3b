package nn

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestLowRankGolden compares a layer with low-rank paths, alone and in a group, with
// PyTorch's, its matrix trained and frozen (scripts/goldens/ops.py).
func TestLowRankGolden(t *testing.T) {
	g, cases := openOps[struct {
		Rows, Inputs, Outputs int
		Froms, Widths         []int
		Rank                  int
		Act                   string
	}](t, "lowrank")
	pool := kernel.NewPool(2)
	defer pool.Close()
	for i, c := range cases {
		at := func(name string) []float32 { return g.Floats(fmt.Sprint(i, ".", name)) }
		weight := func(name string, cols int) *Weight {
			data := at(name)
			return &Weight{Data: data, Rows: len(data) / cols, Cols: cols}
		}
		act := kernel.Identity
		if c.Act == "silu" {
			act = kernel.SiLU
		}
		for _, frozen := range []bool{false, true} {
			for _, group := range []bool{false, true} {
				l := &Linear{W: weight("w", c.Inputs), B: weight("b", c.Outputs)}
				l.W.Frozen, l.B.Frozen = frozen, frozen
				for j, from := range c.Froms {
					l.Sides = append(l.Sides, &LowRank{A: weight(fmt.Sprint("a", j), c.Inputs), B: weight(fmt.Sprint("b", j), c.Rank), From: from, Scale: 0.5})
				}
				tape := NewTape(pool)
				tape.Train = true
				x := tape.New(c.Rows, c.Inputs)
				copy(x.Data, at("x"))
				x.noGrad = frozen
				var y *Tensor
				if group {
					y = tape.Linears(nil, []*Tensor{x}, []*Linear{l}, act, nil)[0]
				} else {
					y = tape.Linear(x, l, act, nil)
				}
				golden.Near(t, fmt.Sprint(c, " output"), y.Data, at("y"), 1e-5)
				for r, cut := range []int{0, c.Widths[0]} { // parts of the layer, with their paths
					to := append(c.Widths[:1:1], c.Outputs)[r]
					part, want := tape.Linear(x, l.View(cut, to), act, nil), y.Data[cut:]
					for row := range part.Rows {
						if part.Cols > 0 {
							golden.Near(t, fmt.Sprint(c, " part from ", cut), part.Data[row*part.Cols:(row+1)*part.Cols], want[row*c.Outputs:][:part.Cols], 1e-6)
						}
					}
				}
				y.Grad = at("dy")
				tape.Backward()
				if frozen != (x.Grad == nil) {
					t.Error("a constant input has a gradient, or another has none")
				}
				if !frozen {
					golden.Near(t, fmt.Sprint(c, " gradient of x"), x.Grad, at("dx"), 1e-5)
					golden.Near(t, fmt.Sprint(c, " gradient of W"), l.W.Grad, at("dw"), 1e-5)
					golden.Near(t, fmt.Sprint(c, " gradient of b"), l.B.Grad, at("db"), 1e-5)
				}
				for j, s := range l.Sides {
					golden.Near(t, fmt.Sprint(c, " gradient of A"), s.A.Grad, at(fmt.Sprint("da", j)), 1e-5)
					golden.Near(t, fmt.Sprint(c, " gradient of B"), s.B.Grad, at(fmt.Sprint("db", j)), 1e-5)
				}
			}
		}
	}
}

// TestLowRankDrop compares a path that drops some of x with the same made of Dropout
// and layers, and with a gradient that x has already.
func TestLowRankDrop(t *testing.T) {
	const rows, in, out, rank, drop = 9, 12, 7, 3, 0.4
	rng := rand.New(rand.NewPCG(7, 8))
	pool := kernel.NewPool(2)
	defer pool.Close()
	tape := NewTape(pool)
	tape.Train = true
	x0, dx0, dy := normal(rng, rows*in, 1), normal(rng, rows*in, 1), normal(rng, rows*out, 1)
	weight := func(rows, cols int) *Weight {
		w := NewWeight(rows, cols)
		copy(w.Data, normal(rng, rows*cols, 1))
		return w
	}
	l := &Linear{W: weight(out, in)}
	s := &LowRank{A: weight(rank, in), B: weight(out, rank), Scale: 1, Drop: drop}
	input := func() *Tensor {
		tape.Reset(5)
		for _, w := range []*Weight{l.W, s.A, s.B} {
			w.ZeroGrad()
		}
		x := tape.New(rows, in)
		copy(x.Data, x0)
		x.Grad = append([]float32(nil), dx0...)
		return x
	}
	results := func(x, y *Tensor) (all [][]float32) {
		all = append(all, append([]float32(nil), y.Data...))
		y.Grad = append([]float32(nil), dy...)
		tape.Backward()
		for _, r := range [][]float32{x.Grad, l.W.Grad, s.A.Grad, s.B.Grad} {
			all = append(all, append([]float32(nil), r...))
		}
		return all
	}
	x := input()
	narrow := tape.Linear(tape.Dropout(x, drop), &Linear{W: s.A}, kernel.Identity, nil)
	want := results(x, tape.Add(tape.Linear(narrow, &Linear{W: s.B}, kernel.Identity, nil), tape.Linear(x, l, kernel.Identity, nil), 0))
	l.Sides = []*LowRank{s}
	x = input()
	got := results(x, tape.Linear(x, l, kernel.Identity, nil))
	for i, name := range []string{"output", "gradient of x", "gradient of W", "gradient of A", "gradient of B"} {
		golden.Near(t, name, got[i], want[i], 1e-5)
	}
	l.Sides[0] = &LowRank{A: s.A, B: s.B, Scale: 1}
	tape.Train = false
	plain := append([]float32(nil), tape.Linear(input(), l, kernel.Identity, nil).Data...)
	l.Sides[0] = s
	golden.Near(t, "output of inference", tape.Linear(input(), l, kernel.Identity, nil).Data, plain, 0)
}
