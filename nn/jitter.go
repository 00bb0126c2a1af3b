package nn

import "mlpfusion/kernel"

type jitter struct {
	t      *Tape
	x, y   *Tensor
	eps    float32
	offset uint64
	dx     []float32
	add    bool
}

// Jitter multiplies each element by noise, uniform in [1−eps, 1+eps], while
// training (Switch Transformers, section 2.4). Otherwise, and when eps is 0, it
// returns x itself.
func (t *Tape) Jitter(x *Tensor, eps float32) *Tensor {
	if !t.Train || eps == 0 {
		return x
	}
	y := t.New(x.Rows, x.Cols)
	y.noGrad = x.noGrad
	op := t.jitters.next()
	*op = jitter{t: t, x: x, y: y, eps: eps, offset: t.offset(len(x.Data))}
	t.Pool.Run(chunks(len(x.Data)), (*jitterForward)(op))
	t.record(op)
	return y
}

// factors writes the noise of a chunk.
func (o *jitter) factors(dst []float32, from int) {
	kernel.Uniform(dst, o.t.Seed, o.offset+uint64(from))
	for i, u := range dst {
		dst[i] = 1 + o.eps*(2*u-1)
	}
}

type jitterForward jitter

func (f *jitterForward) Do(i, _ int) {
	o := (*jitter)(f)
	a, b := chunkOf(i, len(o.y.Data))
	o.factors(o.y.Data[a:b], a)
	kernel.Mul(o.y.Data[a:b], o.x.Data[a:b])
}

func (o *jitter) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	o.dx, o.add = t.gradOf(o.x)
	t.Pool.Run(chunks(len(o.dx)), (*jitterBackward)(o))
	t.release(o.y)
}

type jitterBackward jitter

// Do takes y's memory for the noise: nobody reads y any more.
func (b *jitterBackward) Do(i, _ int) {
	o := (*jitter)(b)
	from, to := chunkOf(i, len(o.dx))
	noise, dx := o.y.Data[from:to], o.dx[from:to]
	o.factors(noise, from)
	kernel.Mul(noise, o.y.Grad[from:to])
	if o.add {
		kernel.Add(dx, noise)
	} else {
		copy(dx, noise)
	}
}
