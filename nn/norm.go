package nn

import "mlpfusion/kernel"

// Norm is layer normalisation over the hidden size.
type Norm struct {
	Gain, Bias *Weight // 1 × hidden
	Eps        float32
}

const rowChunk = 16 // rows of one iteration of a row-wise loop

func rowChunks(rows int) int { return (rows + rowChunk - 1) / rowChunk }

type addNorm struct {
	t          *Tape
	x, res, y  *Tensor
	n          *Norm
	p          float32
	offset     uint64
	norm, rstd []float32
	partial    []float32 // chunk × (gain, bias) gradients
	dx, dres   []float32
	addX       bool
	addRes     bool
}

// AddNorm returns LayerNorm(dropout(x) + residual) with dropout probability p
// while training; residual may be nil.
func (t *Tape) AddNorm(x, residual *Tensor, n *Norm, p float32) *Tensor {
	y := t.New(x.Rows, x.Cols)
	op := t.norms.next()
	*op = addNorm{t: t, x: x, res: residual, y: y, n: n}
	y.noGrad = x.noGrad && n.Gain.Frozen && (residual == nil || residual.noGrad)
	if t.Train {
		op.p = p
		op.offset = t.offset(len(x.Data))
	}
	if t.Train && !y.noGrad {
		op.norm = t.floats(len(x.Data))
		op.rstd = t.floats(x.Rows)
	}
	t.Pool.Run(rowChunks(x.Rows), (*addNormForward)(op))
	t.record(op)
	return y
}

type addNormForward addNorm

func (o *addNormForward) Do(i, _ int) {
	c := o.x.Cols
	for r := i * rowChunk; r < min(o.x.Rows, (i+1)*rowChunk); r++ {
		a, b := r*c, (r+1)*c
		y, v := o.y.Data[a:b], o.x.Data[a:b]
		if o.p > 0 {
			kernel.DropoutApply(y, v, o.t.Seed, o.offset+uint64(a), o.p)
			v = y
		}
		if o.res != nil {
			kernel.AddTo(y, v, o.res.Data[a:b])
			v = y
		}
		var norm []float32
		if o.norm != nil {
			norm = o.norm[a:b]
		}
		rstd := kernel.LayerNorm(y, norm, v, o.n.Gain.Data, o.n.Bias.Data, o.n.Eps)
		if o.norm != nil {
			o.rstd[r] = rstd
		}
	}
}

func (o *addNorm) backward(t *Tape) {
	if t.takeGrad(o.y) == nil || o.y.noGrad {
		return
	}
	c, n := o.y.Cols, rowChunks(o.y.Rows)
	o.partial = t.grads.get(n * 2 * c)
	o.dx, o.addX = t.gradOf(o.x)
	if o.res != nil && !o.res.noGrad {
		o.dres, o.addRes = t.gradOf(o.res)
	}
	t.Pool.Run(n, (*addNormBackward)(o))
	if !o.n.Gain.Frozen {
		for i, w := range [2]*Weight{o.n.Gain, o.n.Bias} {
			grad, add := w.gradient()
			if !add {
				clear(grad)
			}
			kernel.AddColumns(grad, o.partial[i*c:], 2*c, n)
		}
	}
	t.grads.put(o.partial)
	t.release(o.y)
}

type addNormBackward addNorm

func (o *addNormBackward) Do(i, w int) {
	c := o.y.Cols
	part := o.partial[i*2*c : (i+1)*2*c]
	clear(part)
	for r := i * rowChunk; r < min(o.y.Rows, (i+1)*rowChunk); r++ {
		a, b := r*c, (r+1)*c
		dy, dx := o.y.Grad[a:b], o.dx[a:b]
		v := dx // where the gradient of the sum is formed
		if o.addX {
			v = dy // dy is not needed after this row
		}
		kernel.LayerNormGrad(v, part[:c], part[c:], dy, o.norm[a:b], o.n.Gain.Data, o.rstd[r])
		if o.dres != nil {
			if o.addRes {
				kernel.Axpy(1, v, o.dres[a:b])
			} else {
				copy(o.dres[a:b], v)
			}
		}
		if o.p > 0 {
			kernel.DropoutApply(v, v, o.t.Seed, o.offset+uint64(a), o.p)
		}
		switch {
		case o.addX:
			kernel.Axpy(1, v, dx)
		case &v[0] != &dx[0]:
			copy(dx, v)
		}
	}
}
