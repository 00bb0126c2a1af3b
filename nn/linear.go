package nn

import "mlpfusion/kernel"

// Linear is y = x·Wᵀ + b with W (out × in); B is nil when there is no bias.
type Linear struct {
	W, B *Weight
}

// View returns the outputs [from, to) of l as a layer that shares its memory.
func (l *Linear) View(from, to int) *Linear {
	v := &Linear{W: l.W.View(from, to)}
	if l.B != nil {
		b := l.B
		v.B = &Weight{Data: b.Data[from:to], Grad: b.Grad[from:to], Rows: 1, Cols: to - from}
	}
	return v
}

type linear struct {
	x, y *Tensor
	l    *Linear
	prec kernel.Precision
}

// Linear returns scale ⊙ σ(x·Wᵀ + b), (x.Rows × W.Rows): scale, one factor a
// column, is the diagonal P of a fused MLP; nil means 1.
func (t *Tape) Linear(x *Tensor, l *Linear, act kernel.Activation, scale []float32) *Tensor {
	y := t.New(x.Rows, l.W.Rows)
	ep := kernel.Epilogue{Act: act, Scale: scale}
	if l.B != nil {
		ep.Bias = l.B.Data
	}
	if t.Train && (act != kernel.Identity || scale != nil) {
		y.Deriv = t.floats(len(y.Data))
		ep.Deriv = y.Deriv
	}
	rows := kernel.Mat{Data: x.Data, Stride: x.Cols}
	if l.W.packed != nil && !t.Train {
		t.Pool.GemmPacked(x.Rows, rows, l.W.packed, y.Data, y.Cols, ep)
	} else {
		t.Pool.Gemm(t.Prec, x.Rows, l.W.Rows, l.W.Cols, rows, kernel.Mat{Data: l.W.Data, Stride: l.W.Cols, T: true}, y.Data, y.Cols, ep)
	}
	y.constant = x.constant && l.W.Frozen
	op := t.linears.next()
	*op = linear{x, y, l, t.Prec}
	t.record(op)
	return y
}

func (o *linear) backward(t *Tape) {
	x, y, l := o.x, o.y, o.l
	dy := t.takeGrad(y)
	if dy == nil || y.constant {
		return
	}
	out, in := l.W.Rows, l.W.Cols
	if !x.constant {
		dx, acc := t.gradOf(x)
		ep := kernel.Epilogue{Accumulate: acc}
		if x.Deriv != nil && !acc {
			ep.Mul = x.Deriv
			x.derivDone = true
		}
		t.Pool.Gemm(o.prec, x.Rows, in, out,
			kernel.Mat{Data: dy, Stride: out}, kernel.Mat{Data: l.W.Data, Stride: in}, dx, in, ep)
	}
	if !l.W.Frozen {
		t.Pool.Gemm(o.prec, out, in, x.Rows,
			kernel.Mat{Data: dy, Stride: out, T: true}, kernel.Mat{Data: x.Data, Stride: in}, l.W.Grad, in,
			kernel.Epilogue{Accumulate: l.W.accumulate()})
		if l.W.Masked {
			t.keepZeros = keepZeros{l.W.Grad, l.W.Data}
			t.Pool.Run(chunks(len(l.W.Data)), &t.keepZeros)
		}
	}
	if l.B != nil && !l.B.Frozen {
		t.columns = addColumns{l.B.Grad, dy, x.Rows, l.B.accumulate()}
		t.Pool.Run((out+columnChunk-1)/columnChunk, &t.columns)
	}
	t.release(y)
}

const columnChunk = 128

// addColumns sums the rows of src (rows × len(dst)) into dst.
type addColumns struct {
	dst, src []float32
	rows     int
	add      bool
}

func (a *addColumns) Do(i, _ int) {
	n := len(a.dst)
	from, to := i*columnChunk, min(n, (i+1)*columnChunk)
	if !a.add {
		clear(a.dst[from:to])
	}
	if a.rows > 0 {
		kernel.AddColumns(a.dst[from:to], a.src[from:], n, a.rows)
	}
}

// keepZeros drops the gradients of zero weights.
type keepZeros struct{ grad, weight []float32 }

func (k *keepZeros) Do(i, _ int) {
	a, b := chunkOf(i, len(k.weight))
	for j := a; j < b; j++ {
		if k.weight[j] == 0 {
			k.grad[j] = 0
		}
	}
}
