package nn

import "mlpfusion/kernel"

// attendOne is attention of one query a sequence that makes neither keys nor
// values of its tokens x. With K = x·Wkᵀ + bk and V = x·Wvᵀ + bv, of a head
//
//	scores  s_t = scale·q·K_t = x_t·r + const,  r = scale·Wkᵀ·q
//	result  Σ_t p_t·V_t       = Wv·z + bv·Σ_t p_t,  z = Σ_t p_t·x_t
//
// where the constant is the same for all t, so that the softmax drops it, and
// Σ p_t is 1 but for dropout. Two products with a matrix for each token become
// two for each sequence.
type attendOne struct {
	AttentionOptions
	t       *Tape
	q, x, y *Tensor
	kv      *Linear
	off     []int32
	prec    kernel.Precision
	longest int
	offset  uint64
	stride  int // from sequence to sequence in r and z
	// r and z are of each sequence and head (hidden); in the backward pass their
	// gradients take their place.
	r, z []float32
	// p and kept are the probabilities before and after dropout, (heads × tokens)
	// of each sequence, and sum what kept adds up to, of each sequence and head.
	p, kept, sum []float32

	dq, dx     []float32
	addQ, addX bool
	addW, addB bool
}

// AttendOne returns what Attention does for one query a sequence, whose keys and
// values kv makes of x: (sequences × heads·dim). q has a row for each sequence,
// offsets mark the sequences in the rows of x, none of them empty. kv's outputs
// are the keys, then the values. Of the options it heeds Heads, KVHeads, Dim, Scale
// and Drop.
func (t *Tape) AttendOne(q, x *Tensor, kv *Linear, offsets []int32, opt AttentionOptions) *Tensor {
	if len(kv.Sides) > 0 { // of another x, where they drop some of it
		for len(t.ones) <= q.Rows {
			t.ones = append(t.ones, int32(len(t.ones)))
		}
		opt := AttentionOptions{Heads: opt.Heads, KVHeads: opt.KVHeads, Dim: opt.Dim, Scale: opt.Scale, Drop: opt.Drop}
		made := t.Linear(x, kv, kernel.Identity, nil)
		return t.Attention(Heads{X: q}, Heads{X: made}, Heads{X: made, Start: kv.W.Rows / 2}, t.ones[:q.Rows+1], offsets, opt)
	}
	y := t.New(q.Rows, opt.Heads*opt.Dim)
	y.noGrad = q.noGrad && x.noGrad && kv.fixed()
	op := t.attendOnes.next()
	*op = attendOne{AttentionOptions: opt, t: t, q: q, x: x, y: y, kv: kv, off: offsets, prec: t.Prec}
	op.complete()
	for i := range q.Rows {
		op.longest = max(op.longest, int(offsets[i+1]-offsets[i]))
	}
	op.stride = opt.Heads*x.Cols + 16 // a multiple of 4096 bytes would crowd the cache
	op.r, op.z = t.floats(q.Rows*op.stride), t.floats(q.Rows*op.stride)
	op.p, op.sum = t.floats(opt.Heads*x.Rows), t.floats(opt.Heads*q.Rows)
	op.kept = op.p
	if t.Train {
		op.offset = t.offset(opt.Heads * q.Rows * op.longest)
	} else {
		op.Drop = 0
	}
	if op.Drop > 0 {
		op.kept = t.floats(len(op.p))
	}
	t.Pool.Run(opt.Heads, (*attendOneKeys)(op))
	t.Pool.Run(q.Rows, (*attendOneScores)(op))
	t.Pool.Run(opt.Heads, (*attendOneValues)(op))
	t.record(op)
	return y
}

// keys and values are the rows of a matrix of kv (dim × hidden) that query head h
// attends to.
func (o *attendOne) keys(w kernel.Mat, h int) kernel.Mat { return o.rows(w, h/o.group()) }

func (o *attendOne) values(w kernel.Mat, h int) kernel.Mat {
	return o.rows(w, o.KVHeads+h/o.group())
}

func (o *attendOne) rows(w kernel.Mat, head int) kernel.Mat {
	return w.Rows(head*o.Dim, (head+1)*o.Dim)
}

// grad is the gradient of kv's matrix.
func (o *attendOne) grad() kernel.Mat {
	return kernel.Mat{Data: o.kv.W.Grad, Stride: o.kv.W.Cols}
}

// ofHead are a head's columns of q, y or their gradients (sequences × dim).
func (o *attendOne) ofHead(data []float32, h int) kernel.Mat {
	return kernel.Mat{Data: data[h*o.Dim:], Stride: o.y.Cols}
}

// hidden is a head's part of r or z (sequences × hidden).
func (o *attendOne) hidden(data []float32, h int) kernel.Mat {
	return kernel.Mat{Data: data[h*o.x.Cols:], Stride: o.stride}
}

// bias returns the part of the values' bias, or of its gradient, that query head h
// attends to.
func (o *attendOne) bias(b []float32, h int) []float32 {
	return b[(o.KVHeads+h/o.group())*o.Dim:][:o.Dim]
}

// sequence is what belongs to one of them.
type sequence struct {
	n       int        // tokens
	x       kernel.Mat // (n × hidden)
	r, z    kernel.Mat // (heads × hidden)
	p, kept kernel.Mat // (heads × n)
}

func (o *attendOne) sequence(i int) sequence {
	from, c := int(o.off[i]), o.x.Cols
	n := int(o.off[i+1]) - from
	return sequence{n,
		kernel.Mat{Data: o.x.Data[from*c:], Stride: c},
		kernel.Mat{Data: o.r[i*o.stride:], Stride: c}, kernel.Mat{Data: o.z[i*o.stride:], Stride: c},
		kernel.Mat{Data: o.p[from*o.Heads:], Stride: n}, kernel.Mat{Data: o.kept[from*o.Heads:], Stride: n}}
}

// drop applies dropout to a sequence's probabilities, or their gradient.
func (o *attendOne) drop(dst, src []float32, i, n int) {
	for h := range o.Heads {
		kernel.DropoutApply(dst[h*n:(h+1)*n], src[h*n:(h+1)*n], o.t.Seed, o.offset+uint64((h*o.q.Rows+i)*o.longest), o.Drop)
	}
}

type attendOneKeys attendOne

func (f *attendOneKeys) Do(h, w int) {
	o := (*attendOne)(f)
	o.t.Pool.Scratch(w).Gemm(o.prec, o.q.Rows, o.x.Cols, o.Dim, o.ofHead(o.q.Data, h), o.keys(o.kv.W.mat(), h), o.hidden(o.r, h).Data, o.stride, kernel.Epilogue{Alpha: o.Scale})
}

type attendOneScores attendOne

func (f *attendOneScores) Do(i, w int) {
	o := (*attendOne)(f)
	s, scratch := o.sequence(i), o.t.Pool.Scratch(w)
	scratch.Gemm(o.prec, o.Heads, s.n, o.x.Cols, s.r, transposed(s.x), s.p.Data, s.n, kernel.Epilogue{})
	kernel.Softmax(s.p.Data[:o.Heads*s.n], s.n)
	for h := range o.Heads {
		o.sum[i*o.Heads+h] = 1
	}
	if o.Drop > 0 {
		o.drop(s.kept.Data, s.p.Data, i, s.n)
		for h := range o.Heads {
			var sum float32
			for _, p := range s.kept.Data[h*s.n : (h+1)*s.n] {
				sum += p
			}
			o.sum[i*o.Heads+h] = sum
		}
	}
	scratch.Gemm(o.prec, o.Heads, o.x.Cols, s.n, s.kept, s.x, s.z.Data, o.x.Cols, kernel.Epilogue{})
}

type attendOneValues attendOne

func (f *attendOneValues) Do(h, w int) {
	o := (*attendOne)(f)
	y := o.ofHead(o.y.Data, h)
	o.t.Pool.Scratch(w).Gemm(o.prec, o.y.Rows, o.Dim, o.x.Cols, o.hidden(o.z, h), transposed(o.values(o.kv.W.mat(), h)), y.Data, y.Stride, kernel.Epilogue{})
	if o.kv.B != nil {
		for i := range o.y.Rows {
			kernel.Axpy(o.sum[i*o.Heads+h], o.bias(o.kv.B.Data, h), y.Data[i*y.Stride:][:o.Dim])
		}
	}
}

func (o *attendOne) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	o.dq, o.addQ = t.gradOf(o.q)
	o.dx = nil
	if !o.x.noGrad {
		o.dx, o.addX = t.gradOf(o.x)
	}
	if !o.kv.W.Frozen {
		_, o.addW = o.kv.W.gradient()
	}
	if b := o.kv.B; b != nil && !b.Frozen {
		var grad []float32
		if grad, o.addB = b.gradient(); !o.addB {
			clear(grad) // that of the keys vanishes
		}
	}
	t.workspace(o.Heads * o.longest)
	t.Pool.Run(o.KVHeads, (*attendOneValuesGrad)(o))
	t.Pool.Run(o.q.Rows, (*attendOneScoresGrad)(o))
	t.Pool.Run(o.KVHeads, (*attendOneKeysGrad)(o))
	t.release(o.y)
}

type attendOneValuesGrad attendOne

// Do takes the gradients of a head's values and replaces the z of the query heads
// that attend to it by their own.
func (f *attendOneValuesGrad) Do(kv, w int) {
	o := (*attendOne)(f)
	c, scratch := o.x.Cols, o.t.Pool.Scratch(w)
	for g := range o.group() {
		h := kv*o.group() + g
		dy, z := o.ofHead(o.y.Grad, h), o.hidden(o.z, h)
		if !o.kv.W.Frozen {
			scratch.Gemm(o.prec, o.Dim, c, o.y.Rows, transposed(dy), z, o.values(o.grad(), h).Data, c, kernel.Epilogue{Accumulate: o.addW || g > 0, Stream: true})
		}
		if b := o.kv.B; b != nil && !b.Frozen {
			for i := range o.y.Rows {
				kernel.Axpy(o.sum[i*o.Heads+h], dy.Data[i*dy.Stride:][:o.Dim], o.bias(b.Grad, h))
			}
		}
		scratch.Gemm(o.prec, o.y.Rows, c, o.Dim, dy, o.values(o.kv.W.mat(), h), z.Data, z.Stride, kernel.Epilogue{})
	}
}

type attendOneScoresGrad attendOne

// Do takes the gradient of a sequence's tokens and replaces its r by its own.
func (f *attendOneScoresGrad) Do(i, w int) {
	o := (*attendOne)(f)
	s, c, scratch := o.sequence(i), o.x.Cols, o.t.Pool.Scratch(w)
	ds := kernel.Mat{Data: o.t.work[w][:o.Heads*s.n], Stride: s.n}
	dz := s.z
	scratch.Gemm(o.prec, o.Heads, s.n, c, dz, transposed(s.x), ds.Data, s.n, kernel.Epilogue{})
	if o.Drop > 0 {
		if o.kv.B != nil {
			o.addBias(ds.Data, i, s.n)
		}
		o.drop(ds.Data, ds.Data, i, s.n)
	}
	for h := range o.Heads {
		kernel.SoftmaxGrad(ds.Data[h*s.n:(h+1)*s.n], s.p.Data[h*s.n:(h+1)*s.n], 1)
	}
	if o.dx != nil {
		dx := o.dx[int(o.off[i])*c:]
		scratch.Gemm(o.prec, s.n, c, o.Heads, transposed(s.kept), dz, dx, c, kernel.Epilogue{Accumulate: o.addX})
		scratch.Gemm(o.prec, s.n, c, o.Heads, transposed(ds), s.r, dx, c, kernel.Epilogue{Accumulate: true})
	}
	scratch.Gemm(o.prec, o.Heads, c, s.n, ds, s.x, s.r.Data, c, kernel.Epilogue{})
}

// addBias adds to the gradients of probabilities what comes through their sum,
// which dropout leaves free.
func (o *attendOne) addBias(dp []float32, i, n int) {
	for h := range o.Heads {
		d := kernel.Dot(o.y.Grad[i*o.y.Cols+h*o.Dim:][:o.Dim], o.bias(o.kv.B.Data, h))
		for j := range n {
			dp[h*n+j] += d
		}
	}
}

type attendOneKeysGrad attendOne

// Do takes the gradients of a head's keys and of the queries that attend to it.
func (f *attendOneKeysGrad) Do(kv, w int) {
	o := (*attendOne)(f)
	c, scratch := o.x.Cols, o.t.Pool.Scratch(w)
	for g := range o.group() {
		h := kv*o.group() + g
		dr, dq := o.hidden(o.r, h), o.ofHead(o.dq, h)
		scratch.Gemm(o.prec, o.q.Rows, o.Dim, c, dr, transposed(o.keys(o.kv.W.mat(), h)), dq.Data, dq.Stride, kernel.Epilogue{Alpha: o.Scale, Accumulate: o.addQ})
		if !o.kv.W.Frozen {
			scratch.Gemm(o.prec, o.Dim, c, o.q.Rows, transposed(o.ofHead(o.q.Data, h)), dr, o.keys(o.grad(), h).Data, c, kernel.Epilogue{Alpha: o.Scale, Accumulate: o.addW || g > 0, Stream: true})
		}
	}
}
