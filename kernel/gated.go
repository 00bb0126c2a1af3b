package kernel

// Gated writes σ(gate_i)·up_i, the units of a gated MLP (arXiv 2002.05202), to y_i.
// All slices have one length; y may be gate or up.
func Gated(act Activation, y, gate, up []float32) {
	activations[act].gated.use(y[:len(gate)], gate, up[:len(gate)])
}

func (a Activation) gatedPortable(y, gate, up []float32) {
	for i, x := range gate {
		f, _ := a.Eval(x)
		y[i] = f * up[i]
	}
}

// GatedGrad writes the gradients with respect to Gated's operands, given dy:
//
//	dgate_i = dy_i·up_i·σ'(gate_i),  dup_i = dy_i·σ(gate_i)
//
// Outputs may be operands, as long as they are two slices.
func GatedGrad(act Activation, dgate, dup, gate, up, dy []float32) {
	n := len(gate)
	activations[act].gatedGrad.use(dgate[:n], dup[:n], gate, up[:n], dy[:n])
}

func (a Activation) gatedGradPortable(dgate, dup, gate, up, dy []float32) {
	for i, x := range gate {
		f, d := a.Eval(x)
		u, g := up[i], dy[i]
		dgate[i], dup[i] = d*u*g, f*g
	}
}
