package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestRotateGolden compares the rotation and its gradient with transformers', of whole
// heads and of a part of them, in halves and interleaved (scripts/goldens/ops.py).
func TestRotateGolden(t *testing.T) {
	g, cases := openOps[struct {
		Heads, Dim, Start, Cols int
		Interleaved             bool
		Factor                  float32
	}](t, "rope")
	for i, c := range cases {
		at := func(name string) []float32 { return g.Floats(fmt.Sprint(i, ".", name)) }
		positions := g.Ints(fmt.Sprint(i, ".positions"))
		rope := NewRope(at("frequencies"), c.Factor, c.Interleaved)
		for _, workers := range []int{1, 2, 5} {
			pool := kernel.NewPool(workers)
			defer pool.Close()
			tape := NewTape(pool)
			tape.Train = true
			x := tape.New(len(positions), c.Cols)
			copy(x.Data, at("x"))
			tape.Rotate(Heads{X: x, Start: c.Start}, c.Heads, c.Dim, rope, positions)
			golden.Near(t, fmt.Sprint(c, " output"), x.Data, at("y"), 1e-6)
			x.Grad = at("dy")
			tape.Backward()
			golden.Near(t, fmt.Sprint(c, " gradient"), x.Grad, at("dx"), 1e-6)
		}
	}
}

// TestRotatePast checks that a rope which has grown gives what it gave before, that
// only a query's distance to a key counts, and that what needs no gradient is left
// alone.
func TestRotatePast(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	tape := NewTape(pool)
	tape.Train = true
	const dim = 8
	rope := NewRope([]float32{1, 0.3, 0.1, 0.01}, 1, false)
	rng := rand.New(rand.NewPCG(1, 2))
	rows := normal(rng, 2*dim, 1)
	turned := func(query, key int32) (*Tensor, float32) {
		x := tape.New(2, dim)
		copy(x.Data, rows)
		tape.Rotate(Heads{X: x}, 1, dim, rope, []int32{query, key})
		return x, kernel.Dot(x.Data[:dim], x.Data[dim:])
	}
	first, product := turned(5, 2)
	kept := slices.Clone(first.Data)
	if _, far := turned(1005, 1002); !(math.Abs(float64(far-product)) <= 1e-4) {
		t.Errorf("a thousand positions on the product is %g, not %g", far, product)
	}
	if again, _ := turned(5, 2); !slices.Equal(again.Data, kept) {
		t.Error("the rotation changed when the rope grew")
	}
	fixed := tape.New(1, dim)
	fixed.noGrad, fixed.Grad = true, slices.Clone(rows[:dim])
	tape.Rotate(Heads{X: fixed}, 1, dim, rope, []int32{3})
	tape.Backward()
	if !slices.Equal(fixed.Grad, rows[:dim]) {
		t.Error("a gradient that nobody needs was turned")
	}
}
