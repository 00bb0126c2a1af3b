package nn

import "mlpfusion/kernel"

type add struct {
	t         *Tape
	x, res, y *Tensor
	p         float32
	offset    uint64
	dx, dres  []float32
	addX      bool
	addRes    bool
}

// Add returns dropout(x) + residual with dropout probability p while training:
// the residual stream of transformers that normalise before each block.
func (t *Tape) Add(x, residual *Tensor, p float32) *Tensor {
	y := t.New(x.Rows, x.Cols)
	y.noGrad = x.noGrad && residual.noGrad
	op := t.adds.next()
	*op = add{t: t, x: x, res: residual, y: y}
	if t.Train {
		op.p, op.offset = p, t.offset(len(x.Data))
	}
	t.Pool.Run(chunks(len(x.Data)), (*addForward)(op))
	t.record(op)
	return y
}

type addForward add

func (o *addForward) Do(i, _ int) {
	a, b := chunkOf(i, len(o.y.Data))
	y, v := o.y.Data[a:b], o.x.Data[a:b]
	if o.p > 0 {
		kernel.DropoutApply(y, v, o.t.Seed, o.offset+uint64(a), o.p)
		v = y
	}
	kernel.AddTo(y, v, o.res.Data[a:b])
}

func (o *add) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	o.dx, o.dres = nil, nil
	if !o.res.noGrad {
		o.dres, o.addRes = t.gradOf(o.res)
	}
	given := o.p == 0 && o.x.Grad == nil && !o.y.watched // to x as it is
	if !given {
		o.dx, o.addX = t.gradOf(o.x)
	}
	t.Pool.Run(chunks(len(o.y.Grad)), (*addBackward)(o))
	if given {
		o.x.Grad, o.y.Grad = o.y.Grad, nil
	} else {
		t.release(o.y)
	}
}

type addBackward add

func (o *addBackward) Do(i, _ int) {
	a, b := chunkOf(i, len(o.y.Grad))
	dy := o.y.Grad[a:b]
	switch {
	case o.dres == nil:
	case o.addRes:
		kernel.Axpy(1, dy, o.dres[a:b])
	default:
		copy(o.dres[a:b], dy)
	}
	if o.dx == nil {
		return
	}
	dx := o.dx[a:b]
	switch {
	case o.addX && o.p > 0:
		kernel.DropoutApply(dy, dy, o.t.Seed, o.offset+uint64(a), o.p)
		kernel.Axpy(1, dy, dx)
	case o.addX:
		kernel.Axpy(1, dy, dx)
	case o.p > 0:
		kernel.DropoutApply(dx, dy, o.t.Seed, o.offset+uint64(a), o.p)
	default:
		copy(dx, dy)
	}
}
