package nn

import "mlpfusion/kernel"

// pageTokens is the number of tokens of a page: enough that a page's keys, and its
// values, are a product worth the name, and no more, since the last page of a sequence
// is copied when it forks and half empty otherwise.
const pageTokens = 32

// Cache keeps the keys and values of every layer for the tokens that sequences
// have so far, so that attention reads them again when the sequences grow.
// Memory comes in pages of a few tokens. Forked sequences, as the beams of a
// search are, share the pages they have in common.
type Cache struct {
	layers, heads, dim int
	pages              [][]float32 // layer × (keys by head × dim × token, values by head × token × dim)
	users              []int32     // of each page
	free               []int32     // pages without users
	sequences          []cached
	spare              []int32 // sequences that may be used again
}

// cached is one sequence.
type cached struct {
	pages  []int32
	tokens int
	coming int // tokens that are being added
}

// NewCache returns an empty cache for attention with this many heads of keys and
// values, each of width dim, in each of this many layers.
func NewCache(layers, heads, dim int) *Cache {
	return &Cache{layers: layers, heads: heads, dim: dim}
}

// New begins a sequence of no tokens and returns its number.
func (c *Cache) New() int32 {
	if n := len(c.spare); n > 0 {
		s := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return s
	}
	c.sequences = append(c.sequences, cached{})
	return int32(len(c.sequences) - 1)
}

// Fork begins a sequence with the tokens of another.
func (c *Cache) Fork(from int32) int32 {
	s := c.New()
	a, b := &c.sequences[from], &c.sequences[s]
	b.pages, b.tokens = append(b.pages[:0], a.pages...), a.tokens
	for _, p := range b.pages {
		c.users[p]++
	}
	return s
}

// Free ends a sequence; its number may be given out again.
func (c *Cache) Free(s int32) {
	q := &c.sequences[s]
	for _, p := range q.pages {
		c.release(p)
	}
	q.pages, q.tokens = q.pages[:0], 0
	c.spare = append(c.spare, s)
}

// Truncate takes all tokens of a sequence away but the first.
func (c *Cache) Truncate(s int32, tokens int) {
	q := &c.sequences[s]
	pages := (tokens + pageTokens - 1) / pageTokens
	for _, p := range q.pages[pages:] {
		c.release(p)
	}
	q.pages, q.tokens = q.pages[:pages], tokens
}

// Len is the number of tokens of a sequence.
func (c *Cache) Len(s int32) int { return c.sequences[s].tokens }

// Grow makes room for more tokens of a sequence, which the layers' attention
// then fills; Grown counts them in.
func (c *Cache) Grow(s int32, tokens int) {
	q := &c.sequences[s]
	q.coming = tokens
	if rest := q.tokens % pageTokens; rest > 0 {
		if last := &q.pages[len(q.pages)-1]; c.users[*last] > 1 {
			p := c.page()
			c.copyTokens(c.pages[p], c.pages[*last], rest)
			c.release(*last)
			*last = p
		}
	}
	for len(q.pages)*pageTokens < q.tokens+tokens {
		q.pages = append(q.pages, c.page())
	}
}

// Grown ends what Grow began, once every layer has added its keys and values.
func (c *Cache) Grown(s int32) {
	q := &c.sequences[s]
	q.tokens += q.coming
	q.coming = 0
}

// page returns a page with one user. Pages are made in ever larger numbers.
func (c *Cache) page() int32 {
	if len(c.free) == 0 {
		size := c.layers * 2 * c.heads * pageTokens * c.dim
		slab := kernel.LargePages(max(1, len(c.pages)) * size)
		for ; len(slab) > 0; slab = slab[size:] {
			c.free = append(c.free, int32(len(c.pages)))
			c.pages = append(c.pages, slab[:size:size])
			c.users = append(c.users, 0)
		}
	}
	last := len(c.free) - 1
	p := c.free[last]
	c.free = c.free[:last]
	c.users[p] = 1
	return p
}

func (c *Cache) release(p int32) {
	if c.users[p]--; c.users[p] == 0 {
		c.free = append(c.free, p)
	}
}

// copyTokens copies the first tokens of a page.
func (c *Cache) copyTokens(dst, src []float32, tokens int) {
	size := c.heads * pageTokens * c.dim // of a layer's keys, or values
	for at := 0; at < len(src); at += 2 * size {
		for key := at; key < at+size; key += pageTokens {
			copy(dst[key:key+tokens], src[key:])
		}
		for value := at + size; value < at+2*size; value += pageTokens * c.dim {
			copy(dst[value:value+tokens*c.dim], src[value:])
		}
	}
}

// keys returns one head's in a page of a sequence, (dim × token), values (token × dim).
func (c *Cache) keys(s int32, page, layer, head int) []float32 {
	from := (2*layer*c.heads + head) * pageTokens * c.dim
	return c.pages[c.sequences[s].pages[page]][from : from+pageTokens*c.dim]
}

func (c *Cache) values(s int32, page, layer, head int) []float32 {
	return c.keys(s, page, layer, c.heads+head)
}

// Past is where attention finds the keys and values of the tokens that were
// before: one layer of a cache, for each sequence of the batch.
type Past struct {
	Cache     *Cache
	Layer     int
	Sequences []int32
}

// Remember adds the rows of k and v, in which the sequences begin at offsets, to
// opt.Past, with no query to them.
func (t *Tape) Remember(k, v Heads, offsets []int32, opt AttentionOptions) {
	op := t.attends.next()
	*op = attention{AttentionOptions: opt, t: t, k: k, v: v, off: offsets}
	op.complete()
	t.Pool.Run((len(offsets)-1)*op.KVHeads, (*remember)(op))
}

type remember attention

// Do writes one head's rows of k and v behind the tokens that a sequence of the
// batch has.
func (o *remember) Do(i, _ int) {
	seq, head := i/o.KVHeads, i%o.KVHeads
	c, s := o.Past.Cache, o.Past.Sequences[seq]
	from := int(o.off[seq])
	at := c.sequences[s].tokens
	for r := range int(o.off[seq+1]) - from {
		page, row := (at+r)/pageTokens, (at+r)%pageTokens
		keys := c.keys(s, page, o.Past.Layer, head)
		for i, k := range o.k.row(o.k.X.Data, from+r, head, o.Dim) {
			keys[i*pageTokens+row] = k
		}
		copy(c.values(s, page, o.Past.Layer, head)[row*o.Dim:], o.v.row(o.v.X.Data, from+r, head, o.Dim))
	}
}

// recall computes the attention of one sequence to all that the cache holds of one head
// of keys and values, query by query, the query heads that share it together.
func (o *attention) recall(seq, w int, p span) {
	c, s, layer, scratch := o.Past.Cache, o.Past.Sequences[seq], o.Past.Layer, o.t.Pool.Scratch(w)
	scale := o.Scale
	if o.Softcap > 0 {
		scale /= o.Softcap
	}
	group := o.group()
	for r := range p.lq {
		from, to := o.seen(p, r)
		first := from / pageTokens
		base := first * pageTokens // the token of the first score
		stride := (to - base + pageTokens - 1) / pageTokens * pageTokens
		scores := o.t.work[w][:group*stride]
		query := kernel.Mat{Data: o.q.at(o.q.X.Data, p.q0+r, p.h, o.Dim).Data, Stride: o.Dim}
		for k := base; k < to; k += pageTokens { // whole pages: what lies behind the last token is not used
			keys := kernel.Mat{Data: c.keys(s, k/pageTokens, layer, p.kv), Stride: pageTokens}
			scratch.Gemm(kernel.FP32, group, pageTokens, o.Dim, query, keys, scores[k-base:], stride, kernel.Epilogue{Alpha: scale})
		}
		for g := range group {
			row := scores[g*stride+from-base : g*stride+to-base]
			o.cap(row, nil)
			if o.Bias != nil {
				kernel.Add(row, o.biased(o.bias[(p.h+g)*o.distances():], p, r, from, to))
			}
			kernel.Softmax(row, len(row))
		}
		y := o.y.Data[(p.y0+r)*o.y.Cols+p.h*o.Dim:]
		for k := from; k < to; {
			at := k % pageTokens
			n := min(pageTokens-at, to-k)
			values := kernel.Mat{Data: c.values(s, k/pageTokens, layer, p.kv)[at*o.Dim:], Stride: o.Dim}
			scratch.Gemm(kernel.FP32, group, o.Dim, n, kernel.Mat{Data: scores[k-base:], Stride: stride}, values, y, o.Dim, kernel.Epilogue{Accumulate: k > from})
			k += n
		}
	}
}
