package model_test

import (
	"math"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// TestGradientsBF16 checks that bfloat16 products take the gradients no farther
// from PyTorch's exact ones than PyTorch's own bfloat16 (autocast) does: all
// together, and the worst parameter. Ours round each product's inputs once and
// nothing else; autocast rounds its outputs too, so that this is to be expected.
func TestGradientsBF16(t *testing.T) {
	var autocast map[string]struct{ All, Worst float64 }
	golden.JSON(t, "testdata/autocast/distances.json", &autocast)
	for name, limit := range autocast {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			tape.Train, tape.Prec = true, kernel.BF16
			tape.Loss(nn.CrossEntropy, m.Forward(tape, g.input("a")), g.labels("a"))
			tape.Backward()
			var off, size, worst float64
			for _, p := range m.Params {
				p.Weight.SettleGrad()
				want := g.Floats("grad." + p.Name)
				d := golden.Relative(stored(p, p.Grad()), want)
				if norm := golden.Norm(want); norm > 1e-6 {
					worst = max(worst, d)
					off, size = off+d*d*norm*norm, size+norm*norm
				}
			}
			all := math.Sqrt(off / size)
			t.Logf("%.4f of the gradient's norm, at worst %.4f of a parameter's", all, worst)
			if !(all <= limit.All) || !(worst <= limit.Worst) {
				t.Errorf("off by %.4f of the norm, at worst %.4f; PyTorch's autocast %.3f, %.3f", all, worst, limit.All, limit.Worst)
			}
			if all == 0 {
				t.Error("the gradients are exact: bfloat16 was not used")
			}
		})
	}
}
