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
	o.dres = nil
	if !o.res.noGrad {
		o.dres, o.addRes = t.gradOf(o.res)
	}
	o.dx, o.addX = t.gradOf(o.x)
	t.Pool.Run(chunks(len(o.dx)), (*addBackward)(o))
	t.release(o.y)
}

type addBackward add

func (o *addBackward) Do(i, _ int) {
	a, b := chunkOf(i, len(o.dx))
	dy, dx := o.y.Grad[a:b], o.dx[a:b]
	switch {
	case o.dres == nil:
	case o.addRes:
		kernel.Axpy(1, dy, o.dres[a:b])
	default:
		copy(o.dres[a:b], dy)
	}
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
