package nn

import "mlpfusion/kernel"

type dropout struct {
	t      *Tape
	x, y   *Tensor
	p      float32
	offset uint64
	dx     []float32
	add    bool
}

// Dropout zeroes each element with probability p and divides the others by 1−p.
// It returns x itself when not training or when p is 0.
func (t *Tape) Dropout(x *Tensor, p float32) *Tensor {
	if !t.Train || p == 0 {
		return x
	}
	y := t.New(x.Rows, x.Cols)
	y.noGrad = x.noGrad
	op := t.drops.next()
	*op = dropout{t: t, x: x, y: y, p: p, offset: t.offset(len(x.Data))}
	t.Pool.Run(chunks(len(x.Data)), (*dropoutForward)(op))
	t.record(op)
	return y
}

type dropoutForward dropout

func (o *dropoutForward) Do(i, _ int) {
	a, b := chunkOf(i, len(o.y.Data))
	kernel.DropoutApply(o.y.Data[a:b], o.x.Data[a:b], o.t.Seed, o.offset+uint64(a), o.p)
}

func (o *dropout) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	o.dx, o.add = t.gradOf(o.x)
	t.Pool.Run(chunks(len(o.dx)), (*dropoutBackward)(o))
	t.release(o.y)
}

type dropoutBackward dropout

func (o *dropoutBackward) Do(i, _ int) {
	a, b := chunkOf(i, len(o.dx))
	dy, dx := o.y.Grad[a:b], o.dx[a:b]
	if !o.add {
		kernel.DropoutApply(dx, dy, o.t.Seed, o.offset+uint64(a), o.p)
		return
	}
	kernel.DropoutApply(dy, dy, o.t.Seed, o.offset+uint64(a), o.p)
	kernel.Axpy(1, dy, dx)
}
