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
	copy(y, o.gate.Data[from:to])
	kernel.Activate(o.act, y, nil, o.scale)
	kernel.Mul(y, o.up.Data[from:to])
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

func (o *gatedBackward) Do(r, w int) {
	from, to := r*o.y.Cols, (r+1)*o.y.Cols
	value, deriv := o.t.work[w][:o.y.Cols], o.t.work[w][o.y.Cols:2*o.y.Cols]
	copy(value, o.gate.Data[from:to])
	kernel.Activate(o.act, value, deriv, o.scale)
	kernel.Mul(deriv, o.up.Data[from:to])
	dy := o.y.Grad[from:to]
	for _, g := range [2]struct {
		dst, factor []float32
		add         bool
	}{{o.dgate, deriv, o.addG}, {o.dup, value, o.addU}} {
		if g.dst == nil {
			continue
		}
		kernel.Mul(g.factor, dy)
		if dst := g.dst[from:to]; g.add {
			kernel.Add(dst, g.factor)
		} else {
			copy(dst, g.factor)
		}
	}
}
