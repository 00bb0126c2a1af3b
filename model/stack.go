package model

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// stack is the network of encoders and decoders: embeddings, then layers of
// attention and an MLP, each added to the stream of states. Where the norms stand
// tells a BERT from a GPT-2.
type stack struct {
	cfg       *Config
	tables    []*nn.Weight // word, position and type embeddings
	embedNorm *norm
	layers    []*stackLayer

	positions, types []int32
	last             lastRows
}

// stackLayer is one layer.
type stackLayer struct {
	*Attention
	attn, ffn    sublayer
	qNorm, kNorm *nn.RMSNorm
	qkv          *nn.Linear // queries, keys and values as one
	latent       *latent    // in place of all that
	q, kv        *nn.Linear // of a last layer in which few tokens are queries, apart
	out          *nn.Linear
	mlp          *MLP // or
	experts      *mixture
}

// sublayer are the norms about f in sum(x + after(f(before(x)))); nil: none.
type sublayer struct{ before, after, sum *norm }

func newStack(b *builder) network {
	c := b.cfg
	n, m := &c.names, &stack{cfg: c}
	var also []string
	if c.Tied {
		also = []string{n.head + ".weight"}
	}
	b.readBy(-1)
	if c.Tied {
		b.readBy(-1, c.Layers)
	}
	m.tables = append(m.tables, b.embedding(c.Vocab, n.words, also...))
	b.readBy(-1)
	if n.positions != "" {
		m.tables = append(m.tables, b.embedding(c.Positions, n.positions))
	}
	if c.Types > 0 {
		m.tables = append(m.tables, b.embedding(c.Types, n.types))
	}
	m.embedNorm = b.norm(n.embedNorm)
	b.conv = n.transposed
	for i := range c.Layers {
		b.readBy(i)
		m.layers = append(m.layers, b.stackLayer(i))
	}
	b.conv = false
	if n.norm != "" {
		m.layers[c.Layers-1].ffn.sum = b.norm(n.norm)
	}
	b.readBy(c.Layers)
	b.taskHead(m.tables[0])
	return m
}

func (b *builder) stackLayer(i int) *stackLayer {
	c, n := b.cfg, &b.cfg.names
	name := fmt.Sprintf(n.layer, i)
	at := func(part string) string {
		if part == "" {
			return ""
		}
		return name + "." + part
	}
	l := &stackLayer{Attention: &c.Attention[i]}
	l.attn.before = b.norm(at(n.attnNorms.before))
	width, kv := l.Width(), l.KVWidth()
	if l.Latent != nil {
		l.latent = b.latent(l.Attention, at)
		width = l.Heads * l.Latent.Value
	} else if len(n.qkv) == 1 {
		l.qkv = b.linear(c.Hidden, width+2*kv, l.Bias, Normal, at(n.qkv[0]))
	} else {
		l.qkv = b.stacked(c.Hidden, l.Bias, Normal, []string{at(n.qkv[0]), at(n.qkv[1]), at(n.qkv[2])}, []int{width, kv, kv})
	}
	switch l.QKNorm {
	case NormHeads:
		l.qNorm, l.kNorm = b.rmsNorm(l.Dim, at(n.qNorm)), b.rmsNorm(l.Dim, at(n.kNorm))
	case NormAll:
		l.qNorm, l.kNorm = b.rmsNorm(width, at(n.qNorm)), b.rmsNorm(kv, at(n.kNorm))
	}
	init := Normal
	if n.scaledInit {
		init = Residual
	}
	l.out = b.linear(width, c.Hidden, l.OutBias, init, at(n.out))
	l.attn.after, l.attn.sum = b.norm(at(n.attnNorms.after)), b.norm(at(n.attnNorms.sum))
	l.ffn.before = b.norm(at(n.mlpNorms.before))
	if i == c.Layers-1 && c.Head != LanguageModel && l.plain() && b.alloc {
		l.q, l.kv = b.split(l.qkv, width)
		l.qkv = nil
	}
	if c.Mixture.in(i) {
		l.experts = b.stackMixture(i, at)
	} else {
		l.mlp = b.stackMLP(i, name, at)
		l.mlp.Normed = n.mlpNorms.after != ""
	}
	l.ffn.after, l.ffn.sum = b.norm(at(n.mlpNorms.after)), b.norm(at(n.mlpNorms.sum))
	return l
}

// stackMLP states the MLP of a layer whose parts at names.
func (b *builder) stackMLP(layer int, name string, at func(part string) string) *MLP {
	n := &b.cfg.names
	matrix := func(part string) Matrix { return Matrix{Name: at(part), Place: Place{Transposed: n.transposed}} }
	block := Block{Name: name, Layer: layer, Depth: layer, Gate: matrix(n.gate), Up: matrix(n.up), Down: matrix(n.down)}
	if n.gateUp != "" {
		block.Gate.Place, block.Up.Place = Place{In: at(n.gateUp) + ".weight", Parts: 2}, Place{In: at(n.gateUp) + ".weight", Part: 1, Parts: 2}
	}
	if n.block != "" {
		block.Name = at(n.block)
	}
	if b.cfg.Widths != nil {
		block.Original = b.cfg.Widths[layer]
	}
	return b.mlp(block)
}

func (m *stack) embed(t *nn.Tape, in *Input) State {
	x := t.Embed(m.tables, m.ids(in))
	if m.cfg.EmbedScale != 0 {
		t.Scale(x, m.cfg.EmbedScale)
	}
	return State{X: t.Dropout(m.embedNorm.of(t, x), m.cfg.EmbedDrop)}
}

// layer runs layer i. Of the last, the head reads some rows only: attention has no
// queries but from each sequence's first such row to its end, and the rest of the
// layer runs on those rows alone, which is exact.
func (m *stack) layer(t *nn.Tape, i int, s State, in *Input, rows []int32) State {
	c, l, x := m.cfg, m.layers[i], s.X
	normed, offsets := l.attn.before.of(t, x), in.Offsets
	kept := x
	if rows != nil {
		m.last.find(rows, in.Offsets)
		offsets, kept = m.last.offsets, t.Rows(x, rows)
	}
	asked := kept // the queries' rows
	if normed != x {
		asked = normed
	}
	y := t.Linear(m.attend(t, i, normed, asked, in, rows), l.out, kernel.Identity, nil)
	x = l.attn.join(t, m.scaled(t, y), kept, c.HiddenDrop)
	normed = l.ffn.before.of(t, x)
	if l.experts != nil {
		y = l.experts.forward(t, normed, x, offsets, 0)
	} else {
		if normed != x {
			l.mlp.Residual = x
		}
		y = l.mlp.forward(t, normed, offsets, 0)
	}
	return State{X: l.ffn.join(t, m.scaled(t, y), x, c.HiddenDrop)}
}

// scaled is what a sublayer gives times the residual scale.
func (m *stack) scaled(t *nn.Tape, y *nn.Tensor) *nn.Tensor {
	if m.cfg.ResidualScale != 0 {
		t.Scale(y, m.cfg.ResidualScale)
	}
	return y
}

// join adds what a sublayer gives to what it read.
func (s *sublayer) join(t *nn.Tape, y, x *nn.Tensor, drop float32) *nn.Tensor {
	return s.sum.ofSum(t, s.after.of(t, y), x, drop)
}

// attend returns the attention of layer i among the tokens of x for the given rows
// of them, or for all; asked are those rows, or x.
func (m *stack) attend(t *nn.Tape, i int, x, asked *nn.Tensor, in *Input, rows []int32) *nn.Tensor {
	l := m.layers[i]
	opt := l.options(m.cfg.AttnDrop)
	opt.Past = in.past.layer(i)
	width, kvWidth := l.Width(), l.KVWidth()
	var q, k, v nn.Heads
	switch {
	case l.latent != nil:
		q, k, v = l.latent.project(t, x, m.places(in))
	case l.qkv != nil:
		q.X = t.Linear(x, l.qkv, kernel.Identity, nil)
		k, v = nn.Heads{X: q.X, Start: width}, nn.Heads{X: q.X, Start: width + kvWidth}
	case rows != nil: // one a sequence: its first token, or its last but for padding
		if asked == x {
			asked = t.Rows(x, rows)
		}
		offsets := in.Offsets
		if l.Causal && m.last.cut(rows, offsets) {
			x, offsets = t.Rows(x, m.last.seen), m.last.seenOffsets
		}
		return t.AttendOne(t.Linear(asked, l.q, kernel.Identity, nil), x, l.kv, offsets, opt)
	default:
		q.X, k.X = t.Linear(x, l.q, kernel.Identity, nil), t.Linear(x, l.kv, kernel.Identity, nil)
		v = nn.Heads{X: k.X, Start: kvWidth}
	}
	if l.qNorm != nil {
		t.RMSNormHeads(q, width/l.qNorm.Gain.Cols, l.qNorm)
		t.RMSNormHeads(k, kvWidth/l.kNorm.Gain.Cols, l.kNorm)
	}
	if l.Clip != 0 {
		t.Clamp(q.X, l.Clip)
	}
	if l.Rope != nil && l.latent == nil {
		t.Rotate(q, l.Heads+l.KVHeads, l.Dim, l.Rope, m.places(in))
	}
	queries := in.Offsets
	if rows != nil {
		queries, opt.LastQueries = m.last.queries, true
	}
	ctx := t.Attention(q, k, v, queries, in.Offsets, opt)
	if rows != nil && ctx.Rows > len(rows) {
		ctx = t.Rows(ctx, m.last.picked)
	}
	if l.latent != nil {
		ctx = l.latent.narrow(t, ctx)
	}
	return ctx
}

// ids returns the rows of the embedding tables for each token.
func (m *stack) ids(in *Input) (ids [nn.MaxTables][]int32) {
	c, k := m.cfg, 1
	ids[0] = in.IDs
	if c.names.positions != "" {
		ids[k] = m.places(in)
		k++
	}
	if c.Types > 0 {
		ids[k] = in.Types
		if !c.usesTypes() || in.Types == nil {
			for len(m.types) < len(in.IDs) {
				m.types = append(m.types, 0)
			}
			ids[k] = m.types[:len(in.IDs)]
		}
	}
	return ids
}

// places returns each token's position in its sequence.
func (m *stack) places(in *Input) []int32 {
	m.positions = m.positions[:0]
	for i := range len(in.Offsets) - 1 {
		start := in.past.tokens(i) + int32(m.cfg.FirstPosition)
		for p := range in.Offsets[i+1] - in.Offsets[i] {
			m.positions = append(m.positions, start+p)
		}
	}
	return m.positions
}

func (m *stack) readRows(in *Input, f func(table *nn.Weight, rows []int32)) {
	ids := m.ids(in)
	for i, w := range m.tables {
		f(w, ids[i])
	}
}

func (m *stack) cache(c *Cache) {
	heads := 0 // of the layer that has most
	for _, l := range m.layers {
		heads = max(heads, l.KVHeads)
	}
	c.self = nn.NewCache(len(m.layers), heads, m.layers[0].Dim)
}

// norm is a normalisation of either kind; nil is none.
type norm struct {
	layer *nn.Norm
	rms   *nn.RMSNorm
}

// of returns x normalised.
func (n *norm) of(t *nn.Tape, x *nn.Tensor) *nn.Tensor {
	switch {
	case n == nil:
		return x
	case n.rms != nil:
		return t.RMSNorm(x, n.rms)
	}
	return t.AddNorm(x, nil, n.layer, 0)
}

// ofSum returns x + dropout(y) normalised.
func (n *norm) ofSum(t *nn.Tape, y, x *nn.Tensor, drop float32) *nn.Tensor {
	if n != nil && n.layer != nil {
		return t.AddNorm(y, x, n.layer, drop)
	}
	return n.of(t, t.Add(y, x, drop))
}

// lastRows says, of the rows of packed sequences that a head reads, in ascending
// order, where they lie once no others are left.
type lastRows struct {
	offsets []int32 // where each sequence begins among them
	queries []int32 // the same among the tokens from a sequence's first such row on
	picked  []int32 // which of those tokens the rows are

	seen, seenOffsets []int32 // of one row a sequence, the tokens up to it
}

// cut finds the tokens up to each sequence's one row, and tells whether they are not all.
func (l *lastRows) cut(rows, offsets []int32) bool {
	l.seen, l.seenOffsets = l.seen[:0], append(l.seenOffsets[:0], 0)
	for i, row := range rows {
		for r := offsets[i]; r <= row; r++ {
			l.seen = append(l.seen, r)
		}
		l.seenOffsets = append(l.seenOffsets, int32(len(l.seen)))
	}
	return len(l.seen) < int(offsets[len(rows)])
}

func (l *lastRows) find(rows, offsets []int32) {
	l.queries, l.offsets, l.picked = append(l.queries[:0], 0), append(l.offsets[:0], 0), l.picked[:0]
	k := 0
	for i, end := range offsets[1:] {
		first := end
		for ; k < len(rows) && rows[k] < end; k++ {
			first = min(first, rows[k])
			l.picked = append(l.picked, l.queries[i]+rows[k]-first)
		}
		l.queries = append(l.queries, l.queries[i]+end-first)
		l.offsets = append(l.offsets, int32(k))
	}
}
