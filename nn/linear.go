package nn

import "mlpfusion/kernel"

// Linear is y = x·Wᵀ + b with W (out × in); B is nil when there is no bias.
type Linear struct {
	W, B  *Weight
	Sides []*LowRank // each adds to some of the outputs
}

// View returns the outputs [from, to) of l as a layer that shares its memory.
func (l *Linear) View(from, to int) *Linear {
	v := &Linear{W: l.W.View(from, to)}
	if l.B != nil {
		v.B = l.B.cut(from, 1, to-from)
	}
	for _, s := range l.Sides {
		first, end := max(from, s.From), min(to, s.From+s.B.Rows)
		if first >= end {
			continue
		}
		part := *s
		part.From = first - from
		if end-first < s.B.Rows {
			part.B = s.B.View(first-s.From, end-s.From)
		}
		v.Sides = append(v.Sides, &part)
	}
	return v
}

// fixed tells that nothing in l is trained.
func (l *Linear) fixed() bool {
	return l.W.Frozen && (l.B == nil || l.B.Frozen) && len(l.Sides) == 0
}

type linear struct {
	x, y *Tensor
	l    *Linear
	prec kernel.Precision
}

// Linear returns scale ⊙ σ(x·Wᵀ + b), (x.Rows × W.Rows): scale, one factor a
// column, is the diagonal P of a fused MLP; nil means 1.
func (t *Tape) Linear(x *Tensor, l *Linear, act kernel.Activation, scale []float32) *Tensor {
	op := t.linears.next()
	t.Pool.GemmGroup(t.Prec, []kernel.Product{op.forward(t, x, l, act, scale)})
	t.record(op)
	op.sides(t, act, scale)
	return op.y
}

// sides adds the low-rank paths to the product, which then is without activation, and
// applies that.
func (o *linear) sides(t *Tape, act kernel.Activation, scale []float32) {
	if len(o.l.Sides) == 0 {
		return
	}
	for _, s := range o.l.Sides {
		t.lowRanks.next().add(t, o.x, o.y, s)
	}
	t.activate = activate{o.y, act, scale}
	t.Pool.Run(o.y.Rows, &t.activate)
}

type activate struct {
	y     *Tensor
	act   kernel.Activation
	scale []float32
}

func (a *activate) Do(r, _ int) {
	from, to := r*a.y.Cols, (r+1)*a.y.Cols
	var deriv []float32
	if a.y.Deriv != nil {
		deriv = a.y.Deriv[from:to]
	}
	kernel.Activate(a.act, a.y.Data[from:to], deriv, a.scale)
}

// forward makes the output and returns the product that fills it.
func (o *linear) forward(t *Tape, x *Tensor, l *Linear, act kernel.Activation, scale []float32) kernel.Product {
	y := t.New(x.Rows, l.W.Rows)
	y.noGrad = x.noGrad && l.fixed()
	*o = linear{x, y, l, t.Prec}
	p := kernel.Product{M: x.Rows, N: l.W.Rows, K: l.W.Cols, A: kernel.Mat{Data: x.Data, Stride: x.Cols}, C: y.Data, LDC: y.Cols,
		Epilogue: kernel.Epilogue{Act: act, Scale: scale}}
	if l.B != nil {
		p.Epilogue.Bias = l.B.Data
	}
	if t.Train && !y.noGrad && (act != kernel.Identity || scale != nil) {
		y.Deriv = t.floats(len(y.Data))
		p.Epilogue.Deriv = y.Deriv
	}
	if len(l.Sides) > 0 {
		p.Epilogue = kernel.Epilogue{Bias: p.Epilogue.Bias}
	}
	if l.W.packed != nil && !t.Train {
		p.Packed = l.W.packed
	} else {
		p.B = transposed(l.W.mat())
	}
	return p
}

func (o *linear) backward(t *Tape) {
	dy := o.grad(t)
	if dy == nil {
		return
	}
	if !o.x.noGrad {
		t.Pool.GemmGroup(o.prec, []kernel.Product{o.toInput(t, dy)})
	}
	if !o.l.W.Frozen {
		t.Pool.GemmGroup(o.prec, []kernel.Product{o.toWeight(dy)})
	}
	o.finish(t, dy)
}

// grad returns the output's gradient; nil when there is nothing to do.
func (o *linear) grad(t *Tape) []float32 {
	dy := t.takeGrad(o.y)
	if o.y.noGrad {
		return nil
	}
	return dy
}

// toInput returns the product that gives the input its gradient.
func (o *linear) toInput(t *Tape, dy []float32) kernel.Product {
	x, w := o.x, o.l.W
	dx, acc := t.gradOf(x)
	ep := kernel.Epilogue{Accumulate: acc}
	if x.Deriv != nil && !acc {
		ep.Mul = x.Deriv
		x.derivDone = true
	}
	return kernel.Product{M: x.Rows, N: w.Cols, K: w.Rows, A: kernel.Mat{Data: dy, Stride: w.Rows}, B: w.mat(),
		C: dx, LDC: w.Cols, Epilogue: ep}
}

// toWeight returns the product that gives the weight its gradient.
func (o *linear) toWeight(dy []float32) kernel.Product {
	x, w := o.x, o.l.W
	grad, add := w.gradient()
	ep := kernel.Epilogue{Accumulate: add, Stream: true} // the optimizer reads it, at the end
	return kernel.Product{M: w.Rows, N: w.Cols, K: x.Rows, A: kernel.Mat{Data: dy, Stride: w.Rows, T: true}, B: kernel.Mat{Data: x.Data, Stride: w.Cols},
		C: grad, LDC: w.Cols, Epilogue: ep}
}

// finish does what follows the products of the backward pass.
func (o *linear) finish(t *Tape, dy []float32) {
	w := o.l.W
	if !w.Frozen && w.Masked {
		t.keepZeros = keepZeros{w.Grad, w.Data}
		t.Pool.Run(chunks(len(w.Data)), &t.keepZeros)
	}
	if b := o.l.B; b != nil && !b.Frozen {
		grad, add := b.gradient()
		t.columns = addColumns{grad, dy, o.x.Rows, add}
		t.Pool.Run((w.Rows+columnChunk-1)/columnChunk, &t.columns)
	}
	t.release(o.y)
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
