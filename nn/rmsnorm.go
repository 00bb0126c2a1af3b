package nn

import (
	"math"

	"mlpfusion/kernel"
)

// RMSNorm divides by the root of the mean square over the hidden size: T5's
// layer norm, which subtracts no mean and adds no bias.
type RMSNorm struct {
	Gain *Weight // 1 × hidden
	Eps  float32
}

type rmsNorm struct {
	t       *Tape
	x, y    *Tensor
	n       *RMSNorm
	rstd    []float32
	partial []float32 // chunk × gain gradients
	dx      []float32
	add     bool
}

// RMSNorm returns gain ⊙ x/√(mean(x²) + eps), row by row.
func (t *Tape) RMSNorm(x *Tensor, n *RMSNorm) *Tensor {
	y := t.New(x.Rows, x.Cols)
	y.constant = x.constant && n.Gain.Frozen
	op := t.rmsNorms.next()
	*op = rmsNorm{t: t, x: x, y: y, n: n}
	if t.Train {
		op.rstd = t.floats(x.Rows)
	}
	t.Pool.Run(rowChunks(x.Rows), (*rmsNormForward)(op))
	t.workspace(x.Cols)
	t.record(op)
	return y
}

type rmsNormForward rmsNorm

func (o *rmsNormForward) Do(i, _ int) {
	c := o.x.Cols
	for r := i * rowChunk; r < min(o.x.Rows, (i+1)*rowChunk); r++ {
		x, y := o.x.Data[r*c:(r+1)*c], o.y.Data[r*c:(r+1)*c]
		rstd := float32(1 / math.Sqrt(kernel.SumSquares(x)/float64(c)+float64(o.n.Eps)))
		copy(y, o.n.Gain.Data)
		kernel.Mul(y, x)
		kernel.Scale(y, rstd)
		if o.rstd != nil {
			o.rstd[r] = rstd
		}
	}
}

func (o *rmsNorm) backward(t *Tape) {
	if o.y.Grad == nil || o.y.constant {
		return
	}
	c, n := o.y.Cols, rowChunks(o.y.Rows)
	o.partial = t.grads.get(n * c)
	o.dx, o.add = t.gradOf(o.x)
	t.Pool.Run(n, (*rmsNormBackward)(o))
	if w := o.n.Gain; !w.Frozen {
		if !w.accumulate() {
			clear(w.Grad)
		}
		kernel.AddColumns(w.Grad, o.partial, c, n)
	}
	t.grads.put(o.partial)
	t.release(o.y)
}

type rmsNormBackward rmsNorm

// Do computes, with g = gain ⊙ dy, dx = g·rstd − x·rstd³·mean(g ⊙ x).
func (o *rmsNormBackward) Do(i, w int) {
	c := o.y.Cols
	tmp, part := o.t.work[w][:c], o.partial[i*c:(i+1)*c]
	clear(part)
	for r := i * rowChunk; r < min(o.y.Rows, (i+1)*rowChunk); r++ {
		a, b := r*c, (r+1)*c
		dx, dy, x, rstd := o.dx[a:b], o.y.Grad[a:b], o.x.Data[a:b], o.rstd[r]
		if !o.add {
			clear(dx)
		}
		copy(tmp, dy)
		kernel.Mul(tmp, x)
		kernel.Axpy(rstd, tmp, part)
		along := kernel.Dot(tmp, o.n.Gain.Data) * rstd * rstd * rstd / float32(c)
		copy(tmp, dy)
		kernel.Mul(tmp, o.n.Gain.Data)
		kernel.Axpy(rstd, tmp, dx)
		kernel.Axpy(-along, x, dx)
	}
}
