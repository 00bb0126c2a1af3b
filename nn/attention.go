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

// AttentionOptions say how queries attend to keys. The queries of a sequence stand at
// the last of its keys' places.
type AttentionOptions struct {
	// Heads is the number of heads of queries, Dim the width of each head; Heads·Dim
	// may differ from the hidden size.
	Heads, Dim int
	// KVHeads is the number of heads of keys and values, which divides Heads: query
	// heads h·Heads/KVHeads … attend to head h of these (grouped-query attention, arXiv
	// 2305.13245). 0 means Heads.
	KVHeads int
	// Causal lets a query see the keys up to its own place only.
	Causal bool
	// Window bounds how far a query sees; 0: no bound. With Causal these are the last
	// Window keys, its own included (transformers' sliding_window of decoders), without
	// it those up to Window places before and behind it, 2·Window + 1 in all (of
	// ModernBERT, where it is half of local_attention). Work is done for blocks of
	// queries, on the keys that one of them sees.
	Window int
	// LastQueries tells that q has a row for each key, of which only the last
	// ones of each sequence are queries, as many as the offsets say.
	LastQueries bool
	Scale       float32 // of the scores; 0: 1/√Dim
	Softcap     float32 // scaled scores s become Softcap·tanh(s/Softcap) (Gemma 2); 0: they stay
	Drop        float32 // probability of dropout on the attention probabilities
	// Bias is added to the scaled scores; nil: none.
	Bias *PositionBias
	// Past holds keys and values of earlier tokens, before those of k and v, which
	// are added to it; k and v may be empty, and keys nil. Only for inference.
	Past *Past
}

type attention struct {
	AttentionOptions
	t          *Tape
	q, k, v    Heads
	y          *Tensor
	qoff, off  []int32
	offset     uint64
	longest    int
	dq, dk, dv []float32
	bias       []float32 // by head and distance, see PositionBias
	dbias      []float32 // the same of each sequence and head
}

// group returns the number of query heads that share a head of keys and values.
func (o *AttentionOptions) group() int { return o.Heads / o.KVHeads }

// complete fills in what 0 stands for.
func (o *AttentionOptions) complete() {
	if o.Scale == 0 {
		o.Scale = float32(1 / math.Sqrt(float64(o.Dim)))
	}
	if o.KVHeads == 0 {
		o.KVHeads = o.Heads
	}
	if o.Heads%o.KVHeads != 0 {
		panic("nn: attention whose KVHeads do not divide its Heads")
	}
}

// Attention returns softmax(scale·Q·Kᵀ)·V for each sequence and head, with
// dropout on the probabilities while training: (queries × heads·dim). q has
// heads·dim columns, k and v have kvHeads·dim. keys mark the sequences in the rows
// of k and v, queries those in the result and, without LastQueries, in q. q, k and
// v may be columns of one tensor; nothing else may consume those tensors.
//
// The probabilities are not kept but computed again in the backward pass.
func (t *Tape) Attention(q, k, v Heads, queries, keys []int32, opt AttentionOptions) *Tensor {
	y := t.New(int(queries[len(queries)-1]), opt.Heads*opt.Dim)
	y.constant = q.X.constant && k.X != nil && k.X.constant && v.X.constant
	op := t.attends.next()
	*op = attention{AttentionOptions: opt, t: t, q: q, k: k, v: v, y: y, qoff: queries, off: keys}
	op.complete()
	most := 0 // scores of a block of queries
	for i := range len(queries) - 1 {
		lk := op.keys(i)
		op.longest = max(op.longest, lk)
		rows := op.blockRows(int(queries[i+1] - queries[i]))
		if op.Window > 0 {
			lk = min(lk, rows+2*op.Window)
		}
		most = max(most, rows*lk)
	}
	if t.Train {
		op.offset = t.offset(opt.Heads * y.Rows * op.longest)
	} else {
		op.Drop = 0
	}
	if op.Bias != nil {
		op.bias = t.floats(opt.Heads * op.distances())
		op.Bias.spread(op.bias, op.longest)
	}
	t.workspace(4 * most) // scores, dropped ones, their gradient and the cap's derivative
	if op.Past != nil && k.X != nil {
		t.Pool.Run((len(queries)-1)*op.KVHeads, (*remember)(op))
	}
	t.Pool.Run((len(queries)-1)*opt.Heads, (*attentionForward)(op))
	t.record(op)
	return y
}

// span is the part of a sequence and head in the operands.
type span struct {
	h, kv  int // head of the queries, and of the keys and values
	y0, lq int // rows of the result
	q0     int // the first of them in q
	k0, lk int // rows of k and v
	place  int // of the first query among these keys
}

func (o *attention) span(seq, head int) span {
	s := span{h: head, kv: head / o.group(), y0: int(o.qoff[seq]), lk: o.keys(seq)}
	s.lq = int(o.qoff[seq+1]) - s.y0
	s.q0 = s.y0
	if o.off != nil {
		s.k0 = int(o.off[seq])
	}
	if o.LastQueries {
		s.q0 = int(o.off[seq+1]) - s.lq
	}
	s.place = s.lk - s.lq
	return s
}

// queryBlock is the number of queries whose scores are computed at once where they
// do not see all keys: fewer would make the products small, more would compute scores
// that are thrown away.
const queryBlock = 64

// blockRows is the number of a sequence's queries that go together.
func (o *attention) blockRows(queries int) int {
	if o.Causal || o.Window > 0 {
		return min(queries, queryBlock)
	}
	return queries
}

// block returns the queries from r0 on that go together, with the keys that one of
// them sees.
func (o *attention) block(p span, r0 int) span {
	b := p
	b.lq = min(o.blockRows(p.lq), p.lq-r0)
	b.y0, b.q0 = p.y0+r0, p.q0+r0
	first, _ := o.seen(p, r0)
	_, end := o.seen(p, r0+b.lq-1)
	b.k0, b.lk, b.place = p.k0+first, end-first, p.place+r0-first
	return b
}

// keys is the number of keys of a sequence, with those of before.
func (o *attention) keys(seq int) int {
	n := 0
	if o.off != nil {
		n = int(o.off[seq+1] - o.off[seq])
	}
	if o.Past != nil {
		n += o.Past.Cache.Len(o.Past.Sequences[seq])
	}
	return n
}

// seen returns the keys of a span that its query r sees: [from, to).
func (o *attention) seen(p span, r int) (from, to int) {
	to = p.lk
	switch at := p.place + r; {
	case o.Causal:
		to = at + 1
		if o.Window > 0 {
			from = max(0, to-o.Window)
		}
	case o.Window > 0:
		from, to = max(0, at-o.Window), min(p.lk, at+o.Window+1)
	}
	return from, to
}

// distances is the number of distances between a query and a key: from
// 1−longest to longest−1.
func (o *attention) distances() int { return 2*o.longest - 1 }

// biased returns the biases, or their gradients, of query r of a span and its keys
// [from, to).
func (o *attention) biased(all []float32, p span, r, from, to int) []float32 {
	return all[o.longest-1-(p.place+r):][from:to]
}

// probabilities computes softmax(cap(Q·Kᵀ·scale) + bias) of a block into s and, unless
// deriv is empty, the derivative of the cap.
func (o *attention) probabilities(w int, p span, s, deriv []float32) {
	alpha := o.Scale
	if o.Softcap > 0 {
		alpha /= o.Softcap
	}
	o.t.Pool.Scratch(w).Gemm(o.t.Prec, p.lq, p.lk, o.Dim, o.q.at(o.q.X.Data, p.q0, p.h, o.Dim), transposed(o.k.at(o.k.X.Data, p.k0, p.kv, o.Dim)), s, p.lk, kernel.Epilogue{Alpha: alpha})
	o.cap(s, deriv)
	if !o.Causal && o.Window == 0 && o.Bias == nil {
		kernel.Softmax(s, p.lk)
		return
	}
	for r := range p.lq {
		row := s[r*p.lk : (r+1)*p.lk]
		from, to := o.seen(p, r)
		if o.Bias != nil {
			kernel.Add(row[from:to], o.biased(o.bias[p.h*o.distances():], p, r, from, to))
		}
		clear(row[:from])
		kernel.Softmax(row[from:to], to-from)
		clear(row[to:])
	}
}

// cap finishes scores that were divided by the cap, where there is one.
func (o *attention) cap(s, deriv []float32) {
	if o.Softcap > 0 {
		kernel.Activate(kernel.Tanh, s, deriv, nil)
		kernel.Scale(s, o.Softcap)
	}
}

// drop applies dropout to the probabilities (or their gradient) of one sequence
// and head.
func (o *attention) drop(dst, src []float32, p span) {
	n := p.lq * p.lk
	kernel.DropoutApply(dst[:n], src[:n], o.t.Seed, o.offset+uint64((p.h*o.y.Rows+p.y0)*o.longest), o.Drop)
}

func transposed(m kernel.Mat) kernel.Mat {
	m.T = !m.T
	return m
}

type attentionForward attention

func (f *attentionForward) Do(i, w int) {
	o := (*attention)(f)
	p := o.span(i/o.Heads, i%o.Heads)
	if p.lk == 0 || p.lq == 0 {
		return
	}
	if o.Past != nil && o.Past.Cache.Len(o.Past.Sequences[i/o.Heads]) > 0 {
		o.recall(i/o.Heads, w, p)
		return
	}
	for r := 0; r < p.lq; r += o.blockRows(p.lq) {
		o.forward(w, o.block(p, r))
	}
}

func (o *attention) forward(w int, p span) {
	s := o.t.work[w][:p.lq*p.lk]
	o.probabilities(w, p, s, nil)
	if o.Drop > 0 {
		o.drop(s, s, p)
	}
	out := o.y.Data[p.y0*o.y.Cols+p.h*o.Dim:]
	o.t.Pool.Scratch(w).Gemm(o.t.Prec, p.lq, o.Dim, p.lk, kernel.Mat{Data: s, Stride: p.lk}, o.v.at(o.v.X.Data, p.k0, p.kv, o.Dim), out, o.y.Cols, kernel.Epilogue{})
}

func (o *attention) backward(t *Tape) {
	if o.y.Grad == nil || o.y.constant {
		return
	}
	o.dq, _ = t.gradOf(o.q.X)
	o.dk, _ = t.gradOf(o.k.X)
	o.dv, _ = t.gradOf(o.v.X)
	if o.Bias != nil && !o.Bias.Table.Frozen {
		o.dbias = t.grads.get((len(o.off) - 1) * o.Heads * o.distances())
	}
	t.Pool.Run((len(o.off)-1)*o.KVHeads, (*attentionBackward)(o))
	if o.dbias != nil {
		o.Bias.gather(o.dbias, o.longest)
		t.grads.put(o.dbias)
	}
	t.release(o.y)
}

type attentionBackward attention

// Do takes the gradients of one sequence and one head of keys and values, with the
// query heads that attend to it one after another.
func (b *attentionBackward) Do(i, w int) {
	o := (*attention)(b)
	seq, kv := i/o.KVHeads, i%o.KVHeads
	for g := range o.group() {
		head := kv*o.group() + g
		p := o.span(seq, head)
		o.clearUnused(p, g == 0)
		var dbias []float32
		if o.dbias != nil {
			dbias = o.dbias[(seq*o.Heads+head)*o.distances():][:o.distances()]
			clear(dbias)
		}
		if p.lk == 0 || p.lq == 0 {
			continue
		}
		// The last block first: unless there is a window, it reads all keys, whose
		// gradients the first head writes there and all others add to.
		rows := o.blockRows(p.lq)
		for r := (p.lq - 1) / rows * rows; r >= 0; r -= rows {
			o.backwardBlock(w, o.block(p, r), dbias, g > 0 || r+rows < p.lq || o.Window > 0)
		}
	}
}

// backwardBlock takes the gradients of queries that go together; those of keys
// and values are added to, or written.
func (o *attention) backwardBlock(w int, p span, dbias []float32, add bool) {
	lq, lk, dim := p.lq, p.lk, o.Dim
	n := lq * lk
	s, kept, ds, deriv := o.t.work[w][:n], o.t.work[w][n:2*n], o.t.work[w][2*n:3*n], o.t.work[w][3*n:4*n]
	scratch, prec := o.t.Pool.Scratch(w), o.t.Prec
	o.probabilities(w, p, s, deriv)
	if o.Drop > 0 {
		o.drop(kept, s, p)
	} else {
		kept = s
	}
	dy := kernel.Mat{Data: o.y.Grad[p.y0*o.y.Cols+p.h*dim:], Stride: o.y.Cols}
	mat := func(x []float32) kernel.Mat { return kernel.Mat{Data: x, Stride: lk} }
	// dV = Pᵀ·dY, dP = dY·Vᵀ
	scratch.Gemm(prec, lk, dim, lq, transposed(mat(kept)), dy, o.v.at(o.dv, p.k0, p.kv, dim).Data, o.v.X.Cols, kernel.Epilogue{Accumulate: add})
	scratch.Gemm(prec, lq, lk, dim, dy, transposed(o.v.at(o.v.X.Data, p.k0, p.kv, dim)), ds, lk, kernel.Epilogue{})
	if o.Drop > 0 {
		o.drop(ds, ds, p)
	}
	for r := range lq {
		row := ds[r*lk : (r+1)*lk]
		from, to := o.seen(p, r)
		clear(row[:from])
		kernel.SoftmaxGrad(row[from:to], s[r*lk+from:r*lk+to], 1)
		clear(row[to:])
		if dbias != nil {
			kernel.Add(o.biased(dbias, p, r, from, to), row[from:to])
		}
	}
	if o.Softcap > 0 {
		kernel.Mul(ds, deriv)
	}
	// dQ = scale·dS·K, dK = scale·dSᵀ·Q
	scratch.Gemm(prec, lq, dim, lk, mat(ds), o.k.at(o.k.X.Data, p.k0, p.kv, dim), o.q.at(o.dq, p.q0, p.h, dim).Data, o.q.X.Cols, kernel.Epilogue{Alpha: o.Scale})
	scratch.Gemm(prec, lk, dim, lq, transposed(mat(ds)), o.q.at(o.q.X.Data, p.q0, p.h, dim), o.k.at(o.dk, p.k0, p.kv, dim).Data, o.k.X.Cols, kernel.Epilogue{Alpha: o.Scale, Accumulate: add})
}

// clearUnused makes the gradient zero where nothing flows back: of the rows of q
// that are not queries and, for the first query head, of keys that no query reads or
// that no block reads all of.
func (o *attention) clearUnused(p span, first bool) {
	if o.LastQueries {
		o.q.clear(o.dq, p.k0, p.q0, p.h, o.Dim)
	}
	if first && (p.lq == 0 || o.Window > 0) {
		o.k.clear(o.dk, p.k0, p.k0+p.lk, p.kv, o.Dim)
		o.v.clear(o.dv, p.k0, p.k0+p.lk, p.kv, o.Dim)
	}
}

// clear zeroes head h of rows [from, to).
func (s Heads) clear(data []float32, from, to, h, dim int) {
	for r := from; r < to; r++ {
		clear(data[r*s.X.Cols+s.Start+h*dim:][:dim])
	}
}
