package nn

import (
	"math"

	"mlpfusion/kernel"
)

// Heads selects columns of a tensor: head h of width Dim is the columns
// Start + h·Dim … of X.
type Heads struct {
	X     *Tensor
	Start int
}

// at returns rows [from, …) of head h as a matrix operand.
func (s Heads) at(data []float32, from, h, dim int) kernel.Mat {
	return kernel.Mat{Data: data[from*s.X.Cols+s.Start+h*dim:], Stride: s.X.Cols}
}

type attention struct {
	t          *Tape
	q, k, v    Heads
	y          *Tensor
	qoff, off  []int32
	heads, dim int
	p          float32
	scale      float32
	offset     uint64
	longest    int
	dq, dk, dv []float32
}

// Attention returns softmax(Q·Kᵀ/√dim)·V for each sequence and head, with
// dropout probability p on the probabilities while training: (rows of q ×
// heads·dim). offsets mark the sequences in the rows of k and v, queries those
// in q (one query a sequence when only its first token is wanted). q, k and v
// may be columns of one tensor; nothing else may consume those tensors.
//
// The probabilities are not kept but computed again in the backward pass.
func (t *Tape) Attention(q, k, v Heads, queries, offsets []int32, heads, dim int, p float32) *Tensor {
	y := t.New(q.X.Rows, heads*dim)
	y.constant = q.X.constant && k.X.constant && v.X.constant
	op := t.attends.next()
	*op = attention{t: t, q: q, k: k, v: v, y: y, qoff: queries, off: offsets, heads: heads, dim: dim,
		scale: float32(1 / math.Sqrt(float64(dim)))}
	for i := range len(offsets) - 1 {
		op.longest = max(op.longest, int(offsets[i+1]-offsets[i]))
	}
	if t.Train {
		op.p = p
		op.offset = t.offset(heads * q.X.Rows * op.longest)
	}
	t.workspace(3 * op.longest * op.longest)
	t.Pool.Run((len(offsets)-1)*heads, (*attentionForward)(op))
	t.record(op)
	return y
}

// probabilities computes softmax(Q·Kᵀ·scale) of one sequence and head into s.
func (o *attention) probabilities(w, h, q0, lq, k0, lk int, s []float32) {
	o.t.Pool.Scratch(w).Gemm(o.t.Prec, lq, lk, o.dim, o.q.at(o.q.X.Data, q0, h, o.dim), transposed(o.k.at(o.k.X.Data, k0, h, o.dim)), s, lk, kernel.Epilogue{})
	for r := range lq {
		kernel.Softmax(s[r*lk:(r+1)*lk], o.scale)
	}
}

// drop applies dropout to the probabilities (or their gradient) of one sequence
// and head.
func (o *attention) drop(dst, src []float32, h, q0, lq, lk int) {
	base := o.offset + uint64((h*o.q.X.Rows+q0)*o.longest)
	for r := range lq {
		kernel.DropoutApply(dst[r*lk:(r+1)*lk], src[r*lk:(r+1)*lk], o.t.Seed, base+uint64(r*o.longest), o.p)
	}
}

func (o *attention) span(i int) (h, q0, lq, k0, lk int) {
	seq, h := i/o.heads, i%o.heads
	q0, k0 = int(o.qoff[seq]), int(o.off[seq])
	return h, q0, int(o.qoff[seq+1]) - q0, k0, int(o.off[seq+1]) - k0
}

func transposed(m kernel.Mat) kernel.Mat {
	m.T = !m.T
	return m
}

type attentionForward attention

func (f *attentionForward) Do(i, w int) {
	o := (*attention)(f)
	h, q0, lq, k0, lk := o.span(i)
	if lk == 0 {
		return
	}
	s := o.t.work[w][:lq*lk]
	o.probabilities(w, h, q0, lq, k0, lk, s)
	if o.p > 0 {
		o.drop(s, s, h, q0, lq, lk)
	}
	out := o.y.Data[q0*o.y.Cols+h*o.dim:]
	o.t.Pool.Scratch(w).Gemm(o.t.Prec, lq, o.dim, lk, kernel.Mat{Data: s, Stride: lk}, o.v.at(o.v.X.Data, k0, h, o.dim), out, o.y.Cols, kernel.Epilogue{})
}

func (o *attention) backward(t *Tape) {
	if o.y.Grad == nil || o.y.constant {
		return
	}
	o.dq, _ = t.gradOf(o.q.X)
	o.dk, _ = t.gradOf(o.k.X)
	o.dv, _ = t.gradOf(o.v.X)
	t.Pool.Run((len(o.off)-1)*o.heads, (*attentionBackward)(o))
	t.release(o.y)
}

type attentionBackward attention

func (b *attentionBackward) Do(i, w int) {
	o := (*attention)(b)
	h, q0, lq, k0, lk := o.span(i)
	if lk == 0 {
		return
	}
	n := lq * lk
	s, kept, ds := o.t.work[w][:n], o.t.work[w][n:2*n], o.t.work[w][2*n:3*n]
	scratch, prec, dim := o.t.Pool.Scratch(w), o.t.Prec, o.dim
	o.probabilities(w, h, q0, lq, k0, lk, s)
	if o.p > 0 {
		o.drop(kept, s, h, q0, lq, lk)
	} else {
		kept = s
	}
	dy := kernel.Mat{Data: o.y.Grad[q0*o.y.Cols+h*dim:], Stride: o.y.Cols}
	mat := func(x []float32) kernel.Mat { return kernel.Mat{Data: x, Stride: lk} }
	// dV = Pᵀ·dY, dP = dY·Vᵀ
	scratch.Gemm(prec, lk, dim, lq, transposed(mat(kept)), dy, o.v.at(o.dv, k0, h, dim).Data, o.v.X.Cols, kernel.Epilogue{})
	scratch.Gemm(prec, lq, lk, dim, dy, transposed(o.v.at(o.v.X.Data, k0, h, dim)), ds, lk, kernel.Epilogue{})
	if o.p > 0 {
		o.drop(ds, ds, h, q0, lq, lk)
	}
	for r := range lq {
		kernel.SoftmaxGrad(ds[r*lk:(r+1)*lk], s[r*lk:(r+1)*lk], o.scale)
	}
	// dQ = dS·K, dK = dSᵀ·Q
	scratch.Gemm(prec, lq, dim, lk, mat(ds), o.k.at(o.k.X.Data, k0, h, dim), o.q.at(o.dq, q0, h, dim).Data, o.q.X.Cols, kernel.Epilogue{})
	scratch.Gemm(prec, lk, dim, lq, transposed(mat(ds)), o.q.at(o.q.X.Data, q0, h, dim), o.k.at(o.dk, k0, h, dim).Data, o.k.X.Cols, kernel.Epilogue{})
}
