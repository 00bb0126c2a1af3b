package nn

import "mlpfusion/kernel"

type gated struct {
	t           *Tape
	gate, up, y *Tensor
	act         kernel.Activation
	scale       []float32
	dgate, dup  []float32
	addG, addU  bool
}

// Gated returns scale ⊙ σ(gate) ⊙ up, all (tokens × units): the units of a gated MLP
// (arXiv 2002.05202). scale, one factor a column, is the diagonal P of a fused MLP; nil
// means 1. σ and its derivative are computed again in the backward pass.
func (t *Tape) Gated(gate, up *Tensor, act kernel.Activation, scale []float32) *Tensor {
	y := t.New(gate.Rows, gate.Cols)
	y.noGrad = gate.noGrad && up.noGrad
	op := t.gateds.next()
	*op = gated{t: t, gate: gate, up: up, y: y, act: act, scale: scale}
	t.Pool.Run(y.Rows, (*gatedForward)(op))
	t.workspace(2 * y.Cols)
	t.record(op)
	return y
}

type gatedForward gated

func (o *gatedForward) Do(r, _ int) {
	from, to := r*o.y.Cols, (r+1)*o.y.Cols
	y := o.y.Data[from:to]
	kernel.Gated(o.act, y, o.gate.Data[from:to], o.up.Data[from:to])
	if o.scale != nil {
		kernel.Mul(y, o.scale)
	}
}

func (o *gated) backward(t *Tape) {
	if t.takeGrad(o.y) == nil || o.y.noGrad {
		return
	}
	if !o.gate.noGrad {
		o.dgate, o.addG = t.gradOf(o.gate)
	}
	if !o.up.noGrad {
		o.dup, o.addU = t.gradOf(o.up)
	}
	t.Pool.Run(o.y.Rows, (*gatedBackward)(o))
	t.release(o.y)
}

type gatedBackward gated

// Do writes where it may, and elsewhere to the worker's memory, of which nothing is kept
// for an operand without a gradient.
func (o *gatedBackward) Do(r, w int) {
	n := o.y.Cols
	from, to := r*n, (r+1)*n
	dgate, dup := o.t.work[w][:n], o.t.work[w][n:2*n]
	if o.dgate != nil && !o.addG {
		dgate = o.dgate[from:to]
	}
	if o.dup != nil && !o.addU {
		dup = o.dup[from:to]
	}
	kernel.GatedGrad(o.act, dgate, dup, o.gate.Data[from:to], o.up.Data[from:to], o.y.Grad[from:to])
	if o.scale != nil {
		kernel.Mul(dgate, o.scale)
		kernel.Mul(dup, o.scale)
	}
	if o.dgate != nil && o.addG {
		kernel.Add(o.dgate[from:to], dgate)
	}
	if o.dup != nil && o.addU {
		kernel.Add(o.dup[from:to], dup)
	}
}
