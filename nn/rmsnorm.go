package nn

import (
	"math"

	"mlpfusion/kernel"
)

// RMSNorm divides by the root of the mean square over the hidden size, without
// subtracting the mean and without a bias (T5's layer norm).
type RMSNorm struct {
	Gain *Weight // 1 × hidden
	Eps  float32
}

type addRMSNorm struct {
	t        *Tape
	x, res   *Tensor
	sum, y   *Tensor
	n        *RMSNorm
	p        float32
	offset   uint64
	rstd     []float32
	partial  []float32 // chunk × gain gradients
	dsum     []float32
	dx, dres []float32
	addSum   bool
	addX     bool
	addRes   bool
}

// AddRMSNorm returns sum = residual + dropout(x), with dropout probability p
// while training, and y = RMSNorm(sum): the end of one sublayer and the start of
// the next in a model that normalises what enters a sublayer. Without a residual
// sum is x, undropped.
func (t *Tape) AddRMSNorm(x, residual *Tensor, n *RMSNorm, p float32) (sum, y *Tensor) {
	op := t.rmsNorms.next()
	sum = x
	if residual != nil {
		sum = t.New(x.Rows, x.Cols)
		sum.constant = x.constant && residual.constant
	}
	y = t.New(x.Rows, x.Cols)
	y.constant = sum.constant && n.Gain.Frozen
	*op = addRMSNorm{t: t, x: x, res: residual, sum: sum, y: y, n: n}
	if t.Train {
		if residual != nil {
			op.p = p
			op.offset = t.offset(len(x.Data))
		}
		op.rstd = t.floats(x.Rows)
	}
	t.Pool.Run(rowChunks(x.Rows), (*addRMSNormForward)(op))
	t.workspace(x.Cols)
	t.record(op)
	return sum, y
}

type addRMSNormForward addRMSNorm

func (o *addRMSNormForward) Do(i, _ int) {
	c := o.x.Cols
	for r := i * rowChunk; r < min(o.x.Rows, (i+1)*rowChunk); r++ {
		a, b := r*c, (r+1)*c
		sum, y := o.sum.Data[a:b], o.y.Data[a:b]
		switch {
		case o.res == nil:
		case o.p > 0:
			kernel.DropoutAdd(sum, o.res.Data[a:b], o.x.Data[a:b], o.t.Seed, o.offset+uint64(a), o.p)
		default:
			kernel.AddTo(sum, o.x.Data[a:b], o.res.Data[a:b])
		}
		rstd := float32(1 / math.Sqrt(kernel.SumSquares(sum)/float64(c)+float64(o.n.Eps)))
		copy(y, o.n.Gain.Data)
		kernel.Mul(y, sum)
		kernel.Scale(y, rstd)
		if o.rstd != nil {
			o.rstd[r] = rstd
		}
	}
}

func (o *addRMSNorm) backward(t *Tape) {
	fromY := o.y.Grad != nil && !o.y.constant
	if !fromY && (o.res == nil || o.sum.Grad == nil || o.sum.constant) {
		return // nothing reaches sum, or sum is x and has its gradient
	}
	c, n := o.y.Cols, rowChunks(o.y.Rows)
	o.partial, o.dsum, o.dx, o.dres = nil, nil, nil, nil
	if fromY {
		o.partial = t.grads.get(n * c)
	}
	if !o.sum.constant {
		o.dsum, o.addSum = t.gradOf(o.sum)
	}
	if o.res != nil && !o.x.constant {
		o.dx, o.addX = t.gradOf(o.x)
	}
	if o.res != nil && !o.res.constant {
		o.dres, o.addRes = t.gradOf(o.res)
	}
	t.Pool.Run(n, (*addRMSNormBackward)(o))
	if fromY {
		if w := o.n.Gain; !w.Frozen {
			if !w.accumulate() {
				clear(w.Grad)
			}
			kernel.AddColumns(w.Grad, o.partial, c, n)
		}
		t.grads.put(o.partial)
		t.release(o.y)
	}
	if o.res != nil {
		t.release(o.sum)
	}
}

type addRMSNormBackward addRMSNorm

func (o *addRMSNormBackward) Do(i, w int) {
	c := o.y.Cols
	tmp := o.t.work[w][:c]
	var part []float32
	if o.partial != nil {
		part = o.partial[i*c : (i+1)*c]
		clear(part)
	}
	for r := i * rowChunk; r < min(o.y.Rows, (i+1)*rowChunk); r++ {
		a, b := r*c, (r+1)*c
		var d []float32
		if o.dsum != nil {
			d = o.dsum[a:b]
			if !o.addSum {
				clear(d)
			}
		}
		if o.partial != nil {
			dy, v, rstd := o.y.Grad[a:b], o.sum.Data[a:b], o.rstd[r]
			copy(tmp, dy)
			kernel.Mul(tmp, v)
			kernel.Axpy(rstd, tmp, part)
			if d != nil {
				along := kernel.Dot(tmp, o.n.Gain.Data) * rstd * rstd * rstd / float32(c)
				copy(tmp, dy)
				kernel.Mul(tmp, o.n.Gain.Data)
				kernel.Axpy(rstd, tmp, d)
				kernel.Axpy(-along, v, d)
			}
		}
		if o.dres != nil {
			if o.addRes {
				kernel.Add(o.dres[a:b], d)
			} else {
				copy(o.dres[a:b], d)
			}
		}
		if o.dx == nil {
			continue
		}
		if o.p > 0 {
			kernel.DropoutApply(tmp, d, o.t.Seed, o.offset+uint64(a), o.p)
			d = tmp
		}
		if o.addX {
			kernel.Add(o.dx[a:b], d)
		} else {
			copy(o.dx[a:b], d)
		}
	}
}
