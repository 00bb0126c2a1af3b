package nn

import (
	"fmt"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestGatedGolden compares the units of gated MLPs with PyTorch's, and their gradients
// written, added to those the inputs have, and dropped (scripts/goldens/ops.py).
func TestGatedGolden(t *testing.T) {
	acts := map[string]kernel.Activation{"silu": kernel.SiLU, "gelu_pytorch_tanh": kernel.GELUTanh}
	g, cases := openOps[struct {
		Units int
		Act   string
	}](t, "gated")
	pool := kernel.NewPool(2)
	defer pool.Close()
	for i, c := range cases {
		at := func(name string) []float32 { return g.Floats(fmt.Sprint(i, ".", name)) }
		for _, had := range []bool{false, true} {
			tape := NewTape(pool)
			tape.Train = true
			dy := at("dy")
			gate, up := tape.New(len(dy)/c.Units, c.Units), tape.New(len(dy)/c.Units, c.Units)
			copy(gate.Data, at("gate"))
			copy(up.Data, at("up"))
			y := tape.Gated(gate, up, acts[c.Act], at("scale"))
			golden.Near(t, fmt.Sprint(c, " output"), y.Data, at("y"), 2e-6)
			wantG, wantU := at("dgate"), at("dup")
			if had {
				gate.Grad, up.Grad = make([]float32, len(dy)), make([]float32, len(dy))
				for j := range dy {
					gate.Grad[j], up.Grad[j] = 1, -1
					wantG[j], wantU[j] = wantG[j]+1, wantU[j]-1
				}
			}
			y.Grad = dy
			tape.Backward()
			golden.Near(t, fmt.Sprint(c, " gradient of the gate"), gate.Grad, wantG, 3e-6)
			golden.Near(t, fmt.Sprint(c, " gradient of up"), up.Grad, wantU, 3e-6)
		}
		tape := NewTape(pool)
		tape.Train = true
		gate, up := tape.New(1, c.Units), tape.New(1, c.Units)
		copy(gate.Data, at("gate"))
		copy(up.Data, at("up"))
		gate.noGrad = true
		tape.Gated(gate, up, acts[c.Act], nil).Grad = at("dy")[:c.Units]
		tape.Backward()
		if gate.Grad != nil || up.Grad == nil {
			t.Error("a constant gate has a gradient, or what it lets through has none")
		}
	}
}

// TestScale checks that a scaled tensor's gradient is scaled too.
func TestScale(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	tape := NewTape(pool)
	tape.Train = true
	x := tape.New(3, chunk)
	for i := range x.Data {
		x.Data[i] = float32(i)
	}
	tape.Scale(x, 1.5)
	x.Grad = make([]float32, len(x.Data))
	for i := range x.Grad {
		x.Grad[i] = float32(-i)
	}
	tape.Backward()
	for i, v := range x.Data {
		if v != 1.5*float32(i) || x.Grad[i] != -v {
			t.Fatalf("element %d: %g with gradient %g", i, v, x.Grad[i])
		}
	}
}
