package nn

import (
	"fmt"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestRMSNormGolden compares norms of rows and of heads with transformers', where the
// input has a gradient already and where it has none (scripts/goldens/ops.py).
func TestRMSNormGolden(t *testing.T) {
	g, cases := openOps[struct {
		Rows, Cols, Heads, Start int
		Eps                      float32
		OnePlus                  bool
	}](t, "rmsnorm")
	for i, c := range cases {
		at := func(name string) []float32 { return g.Floats(fmt.Sprint(i, ".", name)) }
		for _, workers := range []int{1, 3} {
			for _, had := range []float32{0, 1} {
				pool := kernel.NewPool(workers)
				defer pool.Close()
				tape := NewTape(pool)
				tape.Train = true
				gain := at("gain")
				n := &RMSNorm{Gain: &Weight{Data: gain, Rows: 1, Cols: len(gain)}, Eps: c.Eps, OnePlus: c.OnePlus}
				x := tape.New(c.Rows, c.Cols)
				copy(x.Data, at("x"))
				y, want := x, at("dx")
				if c.Heads == 0 {
					y = tape.RMSNorm(x, n)
					if had > 0 {
						x.Grad = make([]float32, len(x.Data))
						for j := range want {
							x.Grad[j], want[j] = had, want[j]+had
						}
					}
				} else {
					tape.RMSNormHeads(Heads{X: x, Start: c.Start}, c.Heads, n)
				}
				golden.Near(t, fmt.Sprint(c, " output"), y.Data, at("y"), 1e-6)
				y.Grad = at("dy")
				tape.Backward()
				golden.Near(t, fmt.Sprint(c, " gradient"), x.Grad, want, 2e-6)
				golden.Near(t, fmt.Sprint(c, " gradient of the gain"), n.Gain.Grad, at("dgain"), 5e-6)

				tape.Train = false
				tape.Reset(1)
				x = tape.New(c.Rows, c.Cols)
				copy(x.Data, at("x"))
				if y = x; c.Heads == 0 {
					y = tape.RMSNorm(x, n)
				} else {
					tape.RMSNormHeads(Heads{X: x, Start: c.Start}, c.Heads, n)
				}
				golden.Near(t, fmt.Sprint(c, " output of inference"), y.Data, at("y"), 1e-6)
			}
		}
	}
}
