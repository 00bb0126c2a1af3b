package nn

import (
	"slices"

	"mlpfusion/kernel"
)

type linears struct {
	of       []linear
	products []kernel.Product
	waiting  []*linear
}

// Linears appends to ys what Linear gives for each of xs, with a layer and a scale
// (nil: none) of its own, and returns them: the experts of a mixture. All the
// products are one loop of the workers, forward and backward. xs are different
// tensors.
func (t *Tape) Linears(ys, xs []*Tensor, ls []*Linear, act kernel.Activation, scales [][]float32) []*Tensor {
	op := t.groups.next()
	op.of, op.products = slices.Grow(op.of[:0], len(xs))[:len(xs)], op.products[:0]
	for i, x := range xs {
		var scale []float32
		if scales != nil {
			scale = scales[i]
		}
		op.products = append(op.products, op.of[i].forward(t, x, ls[i], act, scale))
		ys = append(ys, op.of[i].y)
	}
	t.Pool.GemmGroup(t.Prec, op.products)
	t.record(op)
	for i := range op.of {
		var scale []float32
		if scales != nil {
			scale = scales[i]
		}
		op.of[i].sides(t, act, scale)
	}
	return ys
}

func (o *linears) backward(t *Tape) {
	o.products, o.waiting = o.products[:0], o.waiting[:0]
	for i := range o.of {
		l := &o.of[i]
		dy := l.grad(t)
		if dy == nil {
			continue
		}
		if !l.x.noGrad {
			o.products = append(o.products, l.toInput(t, dy))
		}
		switch {
		case l.l.W.Frozen:
		case slices.ContainsFunc(o.of[:i], func(before linear) bool { return before.l.W == l.l.W }):
			o.waiting = append(o.waiting, l) // until the others have written the gradient it adds to
		default:
			o.products = append(o.products, l.toWeight(dy))
		}
	}
	if len(o.of) == 0 {
		return
	}
	t.Pool.GemmGroup(o.of[0].prec, o.products)
	for _, l := range o.waiting {
		t.Pool.GemmGroup(l.prec, append(o.products[:0], l.toWeight(l.y.Grad)))
	}
	for i := range o.of {
		if l := &o.of[i]; l.y.Grad != nil && !l.y.noGrad {
			l.finish(t, l.y.Grad)
		}
	}
}
