package nn

import "mlpfusion/kernel"

// RMSNorm divides by the root of the mean square and multiplies by a gain: a layer norm
// that subtracts no mean and adds no bias (arXiv 1910.07467).
type RMSNorm struct {
	Gain    *Weight // 1 × width
	Eps     float32
	OnePlus bool // the gain is 1 + Gain (Gemma)
}

type rmsNorm struct {
	t          *Tape
	in, y      Heads // y may be in, as long as nothing records
	x          Heads // what in is, or was copied from; receives the gradient
	heads, dim int
	n          *RMSNorm
	gain       []float32
	rstd       []float32 // row × head
	partial    []float32 // chunk × gain gradients
	dx         []float32
	add        bool
}

// RMSNorm returns gain ⊙ x/√(mean(x²) + eps), row by row.
func (t *Tape) RMSNorm(x *Tensor, n *RMSNorm) *Tensor {
	y := t.New(x.Rows, x.Cols)
	y.noGrad = x.noGrad && n.Gain.Frozen
	op := t.rmsNorms.next()
	*op = rmsNorm{in: Heads{X: x}, x: Heads{X: x}, y: Heads{X: y}, heads: 1, dim: x.Cols, n: n}
	op.forward(t)
	return y
}

// RMSNormHeads normalises, in place, this many heads of x, each as wide as the norm's
// gain, which they share: Qwen's norms of queries and keys. OLMo 2's, of all queries
// or keys at once, are one head. x is the part of a projection that holds them; it is
// called before anything reads it.
func (t *Tape) RMSNormHeads(x Heads, heads int, n *RMSNorm) {
	x.X.noGrad = x.X.noGrad && n.Gain.Frozen
	op := t.rmsNorms.next()
	*op = rmsNorm{in: x, x: x, y: x, heads: heads, dim: n.Gain.Cols, n: n}
	if t.Train {
		op.in = Heads{X: t.New(x.X.Rows, heads*op.dim)}
	}
	op.forward(t)
}

func (o *rmsNorm) forward(t *Tape) {
	o.t, o.gain = t, o.n.Gain.Data
	if o.n.OnePlus {
		o.gain = t.floats(o.dim)
		for i, g := range o.n.Gain.Data {
			o.gain[i] = 1 + g
		}
	}
	if t.Train {
		o.rstd = t.floats(o.x.X.Rows * o.heads)
	}
	t.Pool.Run(rowChunks(o.x.X.Rows), (*rmsNormForward)(o))
	t.workspace(2 * o.dim)
	t.record(o)
}

// row returns head h of row r.
func (s Heads) row(data []float32, r, h, dim int) []float32 {
	return data[r*s.X.Cols+s.Start+h*dim:][:dim]
}

type rmsNormForward rmsNorm

func (o *rmsNormForward) Do(i, _ int) {
	for r := i * rowChunk; r < min(o.x.X.Rows, (i+1)*rowChunk); r++ {
		for h := range o.heads {
			x, in, y := o.x.row(o.x.X.Data, r, h, o.dim), o.in.row(o.in.X.Data, r, h, o.dim), o.y.row(o.y.X.Data, r, h, o.dim)
			if o.in.X != o.x.X {
				copy(in, x)
			}
			rstd := kernel.RMSNorm(y, x, o.gain, o.n.Eps)
			if o.rstd != nil {
				o.rstd[r*o.heads+h] = rstd
			}
		}
	}
}

func (o *rmsNorm) backward(t *Tape) {
	x, y, w := o.x.X, o.y.X, o.n.Gain
	if y.Grad == nil || y.noGrad {
		return
	}
	n := rowChunks(y.Rows)
	if !w.Frozen {
		o.partial = t.grads.get(n * o.dim)
	}
	switch {
	case x == y:
		o.dx = y.Grad
	case !x.noGrad:
		o.dx, o.add = t.gradOf(x)
	}
	t.Pool.Run(n, (*rmsNormBackward)(o))
	if !w.Frozen {
		grad, add := w.gradient()
		if !add {
			clear(grad)
		}
		kernel.AddColumns(grad, o.partial, o.dim, n)
		t.grads.put(o.partial)
	}
	if x != y {
		t.release(y)
	}
}

type rmsNormBackward rmsNorm

func (o *rmsNormBackward) Do(i, w int) {
	// What nobody keeps goes to the worker's memory.
	tmp, part := o.t.work[w][:o.dim], o.t.work[w][o.dim:2*o.dim]
	if o.partial != nil {
		part = o.partial[i*o.dim : (i+1)*o.dim]
		clear(part)
	}
	for r := i * rowChunk; r < min(o.y.X.Rows, (i+1)*rowChunk); r++ {
		for h := range o.heads {
			x, dy, rstd := o.in.row(o.in.X.Data, r, h, o.dim), o.y.row(o.y.X.Grad, r, h, o.dim), o.rstd[r*o.heads+h]
			dx := tmp
			if o.dx != nil && !o.add {
				dx = o.x.row(o.dx, r, h, o.dim)
			}
			kernel.RMSNormGrad(dx, part, dy, x, o.gain, rstd)
			if o.dx != nil && o.add {
				kernel.Add(o.x.row(o.dx, r, h, o.dim), dx)
			}
		}
	}
}
