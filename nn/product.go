package nn

import "mlpfusion/kernel"

type product struct {
	a, b, y    *Tensor
	da, db     []float32
	addA, addB bool
}

// Product returns a ⊙ b, element by element: the gate of an MLP times what it
// lets through.
func (t *Tape) Product(a, b *Tensor) *Tensor {
	y := t.New(a.Rows, a.Cols)
	y.noGrad = a.noGrad && b.noGrad
	op := t.products.next()
	*op = product{a: a, b: b, y: y}
	t.Pool.Run(chunks(len(y.Data)), (*productForward)(op))
	t.record(op)
	return y
}

type productForward product

func (o *productForward) Do(i, _ int) {
	from, to := chunkOf(i, len(o.y.Data))
	copy(o.y.Data[from:to], o.a.Data[from:to])
	kernel.Mul(o.y.Data[from:to], o.b.Data[from:to])
}

func (o *product) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	o.da, o.db = nil, nil
	if !o.a.noGrad {
		o.da, o.addA = t.gradOf(o.a)
	}
	if !o.b.noGrad {
		o.db, o.addB = t.gradOf(o.b)
	}
	t.Pool.Run(chunks(len(o.y.Data)), (*productBackward)(o))
	t.release(o.y)
}

type productBackward product

func (o *productBackward) Do(i, _ int) {
	from, to := chunkOf(i, len(o.y.Data))
	one := func(dst, other []float32, add bool) {
		switch dy := o.y.Grad[from:to]; {
		case dst == nil:
		case add:
			for j, g := range dy {
				dst[from+j] += g * other[from+j]
			}
		default:
			copy(dst[from:to], dy)
			kernel.Mul(dst[from:to], other[from:to])
		}
	}
	one(o.da, o.b.Data, o.addA)
	one(o.db, o.a.Data, o.addB)
}
