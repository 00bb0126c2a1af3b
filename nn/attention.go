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
	segments   int // that a sequence's queries are cut into for the workers
	dq, dk, dv []float32
	more       []float32 // gradients of keys and values by other heads than a group's first, see keyGrads
	// tops and sums are of each head and row of the result, where there are several
	// blocks of keys: see soft.
	tops, sums []float32
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
// Scores are computed for a block of queries and a block of keys at a time, with a
// running softmax (FlashAttention, arXiv 2205.14135), and again in the backward pass:
// what is kept grows with the number of rows.
func (t *Tape) Attention(q, k, v Heads, queries, keys []int32, opt AttentionOptions) *Tensor {
	y := t.New(int(queries[len(queries)-1]), opt.Heads*opt.Dim)
	y.noGrad = q.X.noGrad && k.X != nil && k.X.noGrad && v.X.noGrad
	op := t.attends.next()
	*op = attention{AttentionOptions: opt, t: t, q: q, k: k, v: v, y: y, qoff: queries, off: keys}
	op.complete()
	most := 0 // queries of a sequence
	for i := range len(queries) - 1 {
		op.longest = max(op.longest, op.keys(i))
		most = max(most, int(queries[i+1]-queries[i]))
	}
	rows := op.blockRows(most)
	op.segments = max(1, (most+segment-1)/segment)
	if t.Train {
		op.offset = t.offset(opt.Heads * y.Rows * op.longest)
	} else {
		op.Drop = 0
	}
	if op.longest > keyBlock {
		op.tops, op.sums = t.floats(opt.Heads*y.Rows), t.floats(opt.Heads*y.Rows)
	}
	if op.Bias != nil {
		op.bias = t.floats(opt.Heads * op.distances())
		op.Bias.spread(op.bias, op.longest)
	}
	if op.Past != nil {
		t.workspace(op.group() * (op.longest + 2*pageTokens))
	}
	t.workspace(rows * (4*min(op.longest, keyBlock) + op.Dim))
	t.Pool.Run((len(queries)-1)*opt.Heads*op.segments, (*attentionForward)(op))
	t.record(op)
	return y
}

// span is the part of a sequence and head in the operands.
type span struct {
	h, kv  int // head of the queries, and of the keys and values
	y0, lq int // rows of the result
	q0     int // the first of them in q
	k0, lk int // rows of k and v
	first  int // of them among the sequence's keys
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

// queryBlock is the number of queries that go together where they do not see all
// keys: fewer would make the products small, more would compute scores that are thrown
// away. Otherwise it is allQueries, and keyBlock is the number of keys that go
// together: their scores stay in the second-level cache.
const (
	queryBlock = 64
	allQueries = 128
	keyBlock   = 512
)

// segment is the number of queries of a head that one worker takes, whole blocks.
const segment = 512

// blockRows is the number of a sequence's queries that go together.
func (o *attention) blockRows(queries int) int {
	if o.Causal || o.Window > 0 {
		return min(queries, queryBlock)
	}
	return min(queries, allQueries)
}

// block returns the queries from r0 on that go together, with the keys that one of
// them sees.
func (o *attention) block(p span, r0 int) span {
	b := p
	b.lq = min(o.blockRows(p.lq), p.lq-r0)
	b.y0, b.q0, b.place = p.y0+r0, p.q0+r0, p.place+r0
	first, _ := o.seen(b, 0)
	_, end := o.seen(b, b.lq-1)
	return b.part(first, end)
}

// part returns the queries of p with its keys [from, to).
func (p span) part(from, to int) span {
	p.k0, p.first, p.lk, p.place = p.k0+from, p.first+from, to-from, p.place-from
	return p
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
	at := p.place + r
	if o.Causal {
		to = at + 1
		if o.Window > 0 {
			from = to - o.Window
		}
	} else if o.Window > 0 {
		from, to = at-o.Window, at+o.Window+1
	}
	from = max(0, from)
	return from, max(from, min(p.lk, to))
}

// distances is the number of distances between a query and a key: from
// 1−longest to longest−1.
func (o *attention) distances() int { return 2*o.longest - 1 }

// biased returns the biases, or their gradients, of query r of a span and its keys
// [from, to).
func (o *attention) biased(all []float32, p span, r, from, to int) []float32 {
	return all[o.longest-1-(p.place+r):][from:to]
}

// scores computes cap(Q·Kᵀ·scale) + bias of a block into s and, unless deriv is
// empty, the derivative of the cap.
func (o *attention) scores(w int, p span, s, deriv []float32) {
	alpha := o.Scale
	if o.Softcap > 0 {
		alpha /= o.Softcap
	}
	o.t.Pool.Scratch(w).Gemm(o.t.Prec, p.lq, p.lk, o.Dim, o.q.at(o.q.X.Data, p.q0, p.h, o.Dim), transposed(o.k.at(o.k.X.Data, p.k0, p.kv, o.Dim)), s, p.lk, kernel.Epilogue{Alpha: alpha})
	o.cap(s, deriv)
	if o.Bias != nil {
		for r := range p.lq {
			from, to := o.seen(p, r)
			kernel.Add(s[r*p.lk+from:r*p.lk+to], o.biased(o.bias[p.h*o.distances():], p, r, from, to))
		}
	}
}

// cap finishes scores that were divided by the cap, where there is one.
func (o *attention) cap(s, deriv []float32) {
	if o.Softcap > 0 {
		kernel.Activate(kernel.Tanh, s, deriv, nil)
		kernel.Scale(s, o.Softcap)
	}
}

// drop applies dropout to the probabilities (or their gradient) of a block.
func (o *attention) drop(dst, src []float32, p span) {
	n := p.lq * p.lk
	kernel.DropoutApply(dst[:n], src[:n], o.t.Seed, o.offset+uint64((p.h*o.y.Rows+p.y0)*o.longest+p.first*p.lq), o.Drop)
}

func transposed(m kernel.Mat) kernel.Mat {
	m.T = !m.T
	return m
}

type attentionForward attention

func (f *attentionForward) Do(i, w int) {
	o := (*attention)(f)
	i, at := i/o.segments, i%o.segments*segment
	seq := i / o.Heads
	p := o.span(seq, i%o.Heads)
	first := p.h%o.group() == 0 && at == 0 // of those that share a head of keys and values
	if o.Past != nil && o.k.X != nil && first {
		(*remember)(o).Do(seq*o.KVHeads+p.kv, w)
	}
	switch {
	case p.lk == 0 || p.lq == 0:
		return
	case o.Past != nil && o.Past.Cache.Len(o.Past.Sequences[seq]) > 0:
		if first {
			o.recall(seq, w, p)
		}
		return
	}
	for r := at; r < min(p.lq, at+segment); r += o.blockRows(p.lq) {
		o.forward(w, o.block(p, r))
	}
}

// forward computes the results of queries that go together.
func (o *attention) forward(w int, p span) {
	out := o.y.Data[p.y0*o.y.Cols+p.h*o.Dim:]
	for at := 0; at < p.lk; at += keyBlock {
		b := p.part(at, min(at+keyBlock, p.lk))
		s := o.t.work[w][:b.lq*b.lk]
		o.scores(w, b, s, nil)
		if p.lk <= keyBlock {
			o.softmax(b, s)
		} else {
			o.running(b, s, out, at == 0)
		}
		if o.Drop > 0 {
			o.drop(s, s, b)
		}
		o.t.Pool.Scratch(w).Gemm(o.t.Prec, b.lq, o.Dim, b.lk, kernel.Mat{Data: s, Stride: b.lk}, o.v.at(o.v.X.Data, b.k0, b.kv, o.Dim), out, o.y.Cols, kernel.Epilogue{Accumulate: at > 0})
	}
	if p.lk > keyBlock {
		_, sums := o.soft(p)
		for r, sum := range sums {
			kernel.Scale(out[r*o.y.Cols:][:o.Dim], 1/sum)
		}
	}
}

// softmax makes scores probabilities where all keys of the queries are there.
func (o *attention) softmax(p span, s []float32) {
	if !o.Causal && o.Window == 0 {
		kernel.Softmax(s, p.lk)
		return
	}
	for r := range p.lq {
		row := s[r*p.lk : (r+1)*p.lk]
		from, to := o.seen(p, r)
		clear(row[:from])
		kernel.Softmax(row[from:to], to-from)
		clear(row[to:])
	}
}

// soft returns the largest score of each query of p so far, and the sum of its scores'
// exponentials less that one.
func (o *attention) soft(p span) (tops, sums []float32) {
	at := p.h*o.y.Rows + p.y0
	return o.tops[at : at+p.lq], o.sums[at : at+p.lq]
}

// running replaces scores by their exponentials less the largest so far, and scales
// down what out holds of the keys before where there is a larger one.
func (o *attention) running(p span, s, out []float32, first bool) {
	tops, sums := o.soft(p)
	for r := range p.lq {
		row := s[r*p.lk : (r+1)*p.lk]
		from, to := o.seen(p, r)
		clear(row[:from])
		clear(row[to:])
		if first {
			tops[r], sums[r] = float32(math.Inf(-1)), 0
		}
		if from == to {
			continue
		}
		if top := kernel.MaxScaled(row[from:to], 1); top > tops[r] {
			if sums[r] > 0 {
				less := float32(math.Exp(float64(tops[r] - top)))
				sums[r] *= less
				kernel.Scale(out[r*o.y.Cols:][:o.Dim], less)
			}
			tops[r] = top
		}
		sums[r] += kernel.ExpSum(row[from:to], 1, tops[r])
	}
}

func (o *attention) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	o.dq, _ = t.gradOf(o.q.X)
	o.dk, _ = t.gradOf(o.k.X)
	o.dv, _ = t.gradOf(o.v.X)
	if o.Bias != nil && !o.Bias.Table.Frozen {
		o.dbias = t.grads.get((len(o.off) - 1) * o.Heads * o.distances())
	}
	sequences := len(o.off) - 1
	if o.group() > 1 && sequences*o.KVHeads < fewTasks {
		rows := int(o.off[sequences])
		o.more = t.grads.get(rows * 2 * (o.Heads - o.KVHeads) * o.Dim)
		t.Pool.Run(sequences*o.Heads, (*attentionBackward)(o))
		t.Pool.Run(rowChunks(rows), (*attentionSum)(o))
		t.grads.put(o.more)
		o.more = nil
	} else {
		t.Pool.Run(sequences*o.KVHeads, (*attentionBackward)(o))
	}
	if o.dbias != nil {
		o.Bias.gather(o.dbias, o.longest)
		t.grads.put(o.dbias)
	}
	t.release(o.y)
}

// fewTasks is the number of heads of keys and values below which, over all sequences,
// the workers take a query head each, for there are more of those.
const fewTasks = 16

type attentionBackward attention

// Do takes the gradients of one sequence and one head of keys and values, with the
// query heads that attend to it one after another, or those of one query head.
func (b *attentionBackward) Do(i, w int) {
	o := (*attention)(b)
	if o.more != nil {
		o.backwardHead(w, i/o.Heads, i%o.Heads, true)
		return
	}
	for g := range o.group() {
		o.backwardHead(w, i/o.KVHeads, i%o.KVHeads*o.group()+g, g == 0)
	}
}

// backwardHead takes the gradients of one query head; it writes those of keys and
// values, or else adds to them.
func (o *attention) backwardHead(w, seq, head int, write bool) {
	p := o.span(seq, head)
	o.clearUnused(p, write)
	var dbias []float32
	if o.dbias != nil {
		dbias = o.dbias[(seq*o.Heads+head)*o.distances():][:o.distances()]
		clear(dbias)
	}
	if p.lk == 0 || p.lq == 0 {
		return
	}
	// The last block first: unless there is a window, it reads all keys, whose
	// gradients are written there and added to by all others.
	rows := o.blockRows(p.lq)
	for r := (p.lq - 1) / rows * rows; r >= 0; r -= rows {
		o.backwardBlock(w, o.block(p, r), dbias, !write || r+rows < p.lq || o.Window > 0)
	}
}

// keyGrads returns where the gradients of a span's keys and values by its query head
// lie: where keys and values have theirs or, where several heads go at once, for all
// but the first of a group, in o.more.
func (o *attention) keyGrads(p span) (dk, dv []float32, kRow, vRow int) {
	g := p.h % o.group()
	if o.more == nil || g == 0 {
		return o.k.at(o.dk, p.k0, p.kv, o.Dim).Data, o.v.at(o.dv, p.k0, p.kv, o.Dim).Data, o.k.X.Cols, o.v.X.Cols
	}
	row := 2 * (o.Heads - o.KVHeads) * o.Dim
	at := p.k0*row + 2*(p.h-p.kv-1)*o.Dim
	return o.more[at:], o.more[at+o.Dim:], row, row
}

type attentionSum attention

// Do adds what the other heads of each group have in o.more to the gradients of a chunk
// of keys and values.
func (s *attentionSum) Do(i, _ int) {
	o := (*attention)(s)
	for r := i * rowChunk; r < min(int(o.off[len(o.off)-1]), (i+1)*rowChunk); r++ {
		for h := range o.Heads {
			p := span{h: h, kv: h / o.group(), k0: r}
			if h%o.group() == 0 {
				continue
			}
			dk, dv, _, _ := o.keyGrads(p)
			kernel.Add(o.k.row(o.dk, r, p.kv, o.Dim), dk[:o.Dim])
			kernel.Add(o.v.row(o.dv, r, p.kv, o.Dim), dv[:o.Dim])
		}
	}
}

// backwardBlock takes the gradients of queries that go together, and writes or adds to
// those of their keys and values:
//
//	dV = Pᵀ·dY,  dS = P ⊙ (dY·Vᵀ − rows of y·dY),  dQ = scale·dS·K,  dK = scale·dSᵀ·Q
//
// With keys in several blocks p_ij = e_ij/z_i, where e is what running made of the
// scores, and it is dY that is divided by z. Dropout is where P meets dY or V.
func (o *attention) backwardBlock(w int, p span, dbias []float32, add bool) {
	dim, scratch, prec := o.Dim, o.t.Pool.Scratch(w), o.t.Prec
	work := o.t.work[w]
	dy := kernel.Mat{Data: o.y.Grad[p.y0*o.y.Cols+p.h*dim:], Stride: o.y.Cols}
	var tops, along []float32
	if p.lk > keyBlock {
		tops, along = o.soft(p) // of the sums along takes the place
		g := work[:p.lq*dim]
		work = work[p.lq*dim:]
		for r, sum := range along {
			row := g[r*dim : (r+1)*dim]
			copy(row, dy.Data[r*dy.Stride:])
			kernel.Scale(row, 1/sum)
			along[r] = kernel.Dot(row, o.y.Data[(p.y0+r)*o.y.Cols+p.h*dim:][:dim])
		}
		dy = kernel.Mat{Data: g, Stride: dim}
	}
	q, dq := o.q.at(o.q.X.Data, p.q0, p.h, dim), o.q.at(o.dq, p.q0, p.h, dim).Data
	for at := 0; at < p.lk; at += keyBlock {
		b := p.part(at, min(at+keyBlock, p.lk))
		lq, lk := b.lq, b.lk
		n := lq * lk
		s, ds, kept, deriv := work[:n], work[n:2*n], work[2*n:3*n], work[3*n:4*n]
		dk, dv, kRow, vRow := o.keyGrads(b)
		o.scores(w, b, s, deriv)
		if tops == nil {
			o.softmax(b, s)
		} else {
			o.again(b, s, tops)
		}
		if o.Drop > 0 {
			o.drop(kept, s, b)
		} else {
			kept = s
		}
		mat := func(x []float32) kernel.Mat { return kernel.Mat{Data: x, Stride: lk} }
		scratch.Gemm(prec, lk, dim, lq, transposed(mat(kept)), dy, dv, vRow, kernel.Epilogue{Accumulate: add})
		scratch.Gemm(prec, lq, lk, dim, dy, transposed(o.v.at(o.v.X.Data, b.k0, b.kv, dim)), ds, lk, kernel.Epilogue{})
		if o.Drop > 0 {
			o.drop(ds, ds, b)
		}
		if tops != nil {
			kernel.Mul(ds, s)
		}
		for r := range lq {
			row, e := ds[r*lk:(r+1)*lk], s[r*lk:(r+1)*lk]
			if tops == nil {
				kernel.SoftmaxGrad(row, e, 1)
			} else {
				kernel.Axpy(-along[r], e, row)
			}
			if dbias != nil {
				from, to := o.seen(b, r)
				kernel.Add(o.biased(dbias, b, r, from, to), row[from:to])
			}
		}
		if o.Softcap > 0 {
			kernel.Mul(ds, deriv)
		}
		scratch.Gemm(prec, lq, dim, lk, mat(ds), o.k.at(o.k.X.Data, b.k0, b.kv, dim), dq, o.q.X.Cols, kernel.Epilogue{Alpha: o.Scale, Accumulate: at > 0})
		scratch.Gemm(prec, lk, dim, lq, transposed(mat(ds)), q, dk, kRow, kernel.Epilogue{Alpha: o.Scale, Accumulate: add})
	}
}

// again replaces scores by their exponentials less the largest of all.
func (o *attention) again(p span, s, tops []float32) {
	for r := range p.lq {
		row := s[r*p.lk : (r+1)*p.lk]
		from, to := o.seen(p, r)
		clear(row[:from])
		kernel.ExpSum(row[from:to], 1, tops[r])
		clear(row[to:])
	}
}

// clearUnused makes the gradient zero where nothing flows back: of the rows of q
// that are not queries and, where they are to be written, of keys that no query reads
// or that no block reads all of.
func (o *attention) clearUnused(p span, write bool) {
	if o.LastQueries {
		o.q.clear(o.dq, p.k0, p.q0, p.h, o.Dim)
	}
	if write && (p.lq == 0 || o.Window > 0) {
		dk, dv, kRow, vRow := o.keyGrads(p)
		for r := range p.lk {
			clear(dk[r*kRow:][:o.Dim])
			clear(dv[r*vRow:][:o.Dim])
		}
	}
}

// clear zeroes head h of rows [from, to).
func (s Heads) clear(data []float32, from, to, h, dim int) {
	for r := from; r < to; r++ {
		clear(data[r*s.X.Cols+s.Start+h*dim:][:dim])
	}
}
