package model

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// seq2seq describes what encoder–decoders have besides their Arch.
type seq2seq struct {
	prefix      string // of the names in a model with a label head
	mlp         string // the MLP's name within its sublayer
	buckets     int    // of relative positions
	maxDistance int    // from here on all distances share a bucket
	sparse      [2]int // one in this many of the encoder's and decoder's layers has a mixture
	// readsStart has the decoder of a model with a label head read its start
	// token alone, not the text after it.
	readsStart bool
}

// encoderDecoder is the network of T5 and Switch Transformers.
type encoderDecoder struct {
	cfg     *Config
	shared  *nn.Weight   // embeddings of encoder and decoder
	tables  []*nn.Weight // only those
	encoder *seqStack
	decoder *seqStack

	decoderIDs, decoderOffsets []int32 // where the batch has none
	last                       lastRows
}

// seqStack is an encoder or a decoder.
type seqStack struct {
	layers []*seqLayer
	bias   *nn.PositionBias // of all layers' self-attention
	norm   *norm            // after the last layer
}

type seqLayer struct {
	norm, crossNorm, mlpNorm *norm
	qkv, out                 *nn.Linear // self-attention
	q, kv, crossOut          *nn.Linear // of the decoder's attention to the encoder's output
	mlp                      *MLP       // or
	experts                  *mixture
}

func newEncoderDecoder(b *builder) network {
	c := b.cfg
	m := &encoderDecoder{cfg: c}
	depth := c.Layers + c.DecoderLayers
	b.readBy(-1, c.Layers, depth) // the decoder's first layer begins with them, and a tied head is them
	m.shared = b.embedding(c.Vocab, c.seq2seq.at(c, "shared"), c.seq2seq.at(c, "decoder.embed_tokens.weight"), c.seq2seq.at(c, "encoder.embed_tokens.weight"))
	m.tables = []*nn.Weight{m.shared}
	m.encoder = b.seqStack("encoder", 0, c.Layers, c.seq2seq.sparse[0])
	m.decoder = b.seqStack("decoder", c.Layers, c.DecoderLayers, c.seq2seq.sparse[1])
	b.readBy(depth)
	b.taskHead(m.shared)
	return m
}

// at is a tensor's name in a model with the configuration's head. Blocks are named
// without the prefix, so that they keep their names when the head changes.
func (s *seq2seq) at(c *Config, name string) string {
	if c.Head == LanguageModel {
		return name
	}
	return s.prefix + name
}

func (b *builder) seqStack(stack string, depth, layers, step int) *seqStack {
	c, s := b.cfg, &seqStack{}
	attn, decoder := &c.Attention[0], stack == "decoder"
	width := attn.Width()
	linear := func(in, out int, names ...string) *nn.Linear {
		outs := make([]int, len(names))
		for i := range outs {
			outs[i] = out
		}
		return b.stacked(in, false, Normal, names, outs)
	}
	for i := range layers {
		block := fmt.Sprintf("%s.block.%d.layer.", stack, i)
		at := func(sublayer int, part string) string {
			return c.seq2seq.at(c, fmt.Sprintf("%s%d.%s", block, sublayer, part))
		}
		l := &seqLayer{}
		b.readBy(depth + i)
		l.qkv = linear(c.Hidden, width, at(0, "SelfAttention.q"), at(0, "SelfAttention.k"), at(0, "SelfAttention.v"))
		l.out = linear(width, c.Hidden, at(0, "SelfAttention.o"))
		if i == 0 {
			var all []int
			for d := range layers {
				all = append(all, depth+d)
			}
			b.readBy(all...)
			table := b.matrix(attn.Heads, c.seq2seq.buckets, at(0, "SelfAttention.relative_attention_bias.weight"))
			if p := b.tensors[len(b.tensors)-1].Param; p != nil {
				p.Decay = false
			}
			b.readBy(depth)
			s.bias = &nn.PositionBias{Table: table, Bidirectional: !decoder, MaxDistance: c.seq2seq.maxDistance}
		}
		l.norm = b.norm(at(0, "layer_norm"))
		last := 1
		if decoder {
			l.q = linear(c.Hidden, width, at(1, "EncDecAttention.q"))
			l.kv = linear(c.Hidden, width, at(1, "EncDecAttention.k"), at(1, "EncDecAttention.v"))
			l.crossOut = linear(width, c.Hidden, at(1, "EncDecAttention.o"))
			l.crossNorm = b.norm(at(1, "layer_norm"))
			last = 2
		}
		mlp := fmt.Sprintf("%s%d.%s", block, last, c.seq2seq.mlp)
		place := func(name string) Block {
			at := c.seq2seq.at(c, name)
			blk := Block{Name: name, Stack: stack, Layer: i, Depth: depth + i, Up: Matrix{Name: at + ".wi"}, Down: Matrix{Name: at + ".wo"}}
			if c.Gated {
				blk.Gate.Name, blk.Up.Name = at+".wi_0", at+".wi_1"
			}
			return blk
		}
		if sparse(i, step) {
			l.experts = b.mixture(mlp, c.seq2seq.at(c, mlp)+".router.classifier", nil, func(e int) Block {
				return place(fmt.Sprintf("%s.experts.expert_%d", mlp, e))
			})
		} else {
			l.mlp = b.mlp(place(mlp))
		}
		l.mlpNorm = b.norm(at(last, "layer_norm"))
		s.layers = append(s.layers, l)
	}
	s.norm = b.norm(c.seq2seq.at(c, stack+".final_layer_norm"))
	return s
}

// sparse tells whether layer i of a stack has a mixture, one in step layers; a
// step of 0 is for none.
func sparse(i, step int) bool { return step == 1 || step > 1 && i%step == 1 }

func (m *encoderDecoder) embed(t *nn.Tape, in *Input) State {
	if in.past != nil {
		return State{} // the encoder has run, and the decoder has its own embeddings
	}
	return State{X: m.lookup(t, in.IDs)}
}

func (m *encoderDecoder) lookup(t *nn.Tape, ids []int32) *nn.Tensor {
	x := t.Embed(m.tables, [nn.MaxTables][]int32{ids})
	return t.Dropout(x, m.cfg.EmbedDrop)
}

// layer runs layer i, the encoder's first. The state after the encoder's last
// layer is its normalised output, and the decoder's first layer begins with the
// decoder's embeddings.
func (m *encoderDecoder) layer(t *nn.Tape, i int, s State, in *Input, rows []int32) State {
	c := m.cfg
	if i < len(m.encoder.layers) {
		if in.past != nil {
			return s
		}
		x := m.sublayers(t, m.encoder, i, s, in.Offsets, nil, nil)
		if i == len(m.encoder.layers)-1 {
			x = t.Dropout(m.encoder.norm.of(t, x), c.HiddenDrop)
		}
		return State{X: x}
	}
	ids, offsets := m.decoderInput(in)
	i -= len(m.encoder.layers)
	if i == 0 {
		encoded := s.X
		if encoded != nil {
			encoded = t.Keep(encoded)
		}
		s = State{X: m.lookup(t, ids), Encoded: encoded}
	}
	x := m.sublayers(t, m.decoder, i, s, offsets, in, rows)
	if i == len(m.decoder.layers)-1 {
		x = t.Dropout(m.decoder.norm.of(t, x), c.HiddenDrop)
	}
	return State{X: x, Encoded: s.Encoded}
}

// sublayers runs layer i of a stack on the tokens of s.X, which begin at offsets;
// in is the batch for the decoder and nil for the encoder. Of the last layer only the given
// rows are wanted, unless nil; a mixture needs all of them, since tokens compete
// for its experts.
func (m *encoderDecoder) sublayers(t *nn.Tape, stack *seqStack, i int, s State, offsets []int32, in *Input, rows []int32) *nn.Tensor {
	c, l := m.cfg, stack.layers[i]
	attn := &c.Attention[0]
	width := attn.Width()
	opt := attn.options(c.AttnDrop)
	self := opt
	self.Bias = stack.bias
	if in != nil {
		self.Causal, self.Past = true, in.past.layer(i)
	}
	qkv := nn.Heads{X: t.Linear(l.norm.of(t, s.X), l.qkv, kernel.Identity, nil)}
	ctx := t.Attention(qkv, nn.Heads{X: qkv.X, Start: width}, nn.Heads{X: qkv.X, Start: 2 * width}, offsets, offsets, self)
	x := t.Add(t.Linear(ctx, l.out, kernel.Identity, nil), s.X, c.HiddenDrop)
	if rows != nil && l.experts == nil && len(rows) < x.Rows {
		m.last.find(rows, offsets)
		x, offsets, rows = t.Rows(x, rows), m.last.offsets, nil
	}
	if in != nil {
		q := t.Linear(l.crossNorm.of(t, x), l.q, kernel.Identity, nil)
		var ctx *nn.Tensor
		switch opt.Past = in.past.encoded(i); {
		case opt.Past != nil:
			ctx = t.Attention(nn.Heads{X: q}, nn.Heads{}, nn.Heads{}, offsets, in.Offsets, opt)
		case ones(offsets):
			ctx = t.AttendOne(q, s.Encoded, l.kv, in.Offsets, opt)
		default:
			kv := nn.Heads{X: t.Linear(s.Encoded, l.kv, kernel.Identity, nil)}
			ctx = t.Attention(nn.Heads{X: q}, kv, nn.Heads{X: kv.X, Start: width}, offsets, in.Offsets, opt)
		}
		x = t.Add(t.Linear(ctx, l.crossOut, kernel.Identity, nil), x, c.HiddenDrop)
	}
	y := l.mlpNorm.of(t, x)
	if l.experts != nil {
		y = l.experts.forward(t, y, x, offsets, c.HiddenDrop)
	} else {
		l.mlp.Residual = x
		y = l.mlp.forward(t, y, offsets, c.HiddenDrop)
	}
	x = t.Add(y, x, c.HiddenDrop)
	if rows != nil && len(rows) < x.Rows {
		x = t.Rows(x, rows)
	}
	return x
}

// ones tells whether offsets are of sequences of one token each.
func ones(offsets []int32) bool {
	for i, o := range offsets {
		if int(o) != i {
			return false
		}
	}
	return true
}

// decoderInput returns the decoder's tokens. Where the batch gives none, the
// decoder reads its start token alone, but that of a T5 with a label head the text
// again, shifted by the start token, as in transformers.
func (m *encoderDecoder) decoderInput(in *Input) (ids, offsets []int32) {
	if in.DecoderOffsets != nil {
		return in.DecoderIDs, in.DecoderOffsets
	}
	m.decoderIDs, m.decoderOffsets = m.decoderIDs[:0], m.decoderOffsets[:0]
	for i := range len(in.Offsets) - 1 {
		m.decoderOffsets = append(m.decoderOffsets, int32(len(m.decoderIDs)))
		m.decoderIDs = append(m.decoderIDs, int32(m.cfg.StartID))
		if !m.cfg.seq2seq.readsStart && m.cfg.Head != LanguageModel {
			m.decoderIDs = append(m.decoderIDs, in.IDs[in.Offsets[i]:in.Offsets[i+1]-1]...)
		}
	}
	m.decoderOffsets = append(m.decoderOffsets, int32(len(m.decoderIDs)))
	return m.decoderIDs, m.decoderOffsets
}

func (m *encoderDecoder) readRows(in *Input, f func(table *nn.Weight, rows []int32)) {
	ids, _ := m.decoderInput(in)
	if m.shared.Touched != nil {
		f(m.shared, in.IDs)
		f(m.shared, ids)
	}
}

func (m *encoderDecoder) cache(c *Cache) {
	attn := m.cfg.Attention[0]
	c.self = nn.NewCache(len(m.decoder.layers), attn.Heads, attn.Dim)
	c.cross = nn.NewCache(len(m.decoder.layers), attn.Heads, attn.Dim)
}

// encode adds to the cache what the decoder's layers attend to of the encoder's
// output, and returns the decoder's first token.
func (m *encoderDecoder) encode(t *nn.Tape, in *Input, c *Cache) int32 {
	s := m.embed(t, in)
	for i := range m.encoder.layers {
		s = m.layer(t, i, s, in, nil)
	}
	opt := nn.AttentionOptions{Heads: m.cfg.Attention[0].Heads, Dim: m.cfg.Attention[0].Dim}
	for i, l := range m.decoder.layers {
		kv := t.Linear(s.X, l.kv, kernel.Identity, nil)
		opt.Past = c.encoded(i)
		t.Remember(nn.Heads{X: kv}, nn.Heads{X: kv, Start: opt.Heads * opt.Dim}, in.Offsets, opt)
	}
	return int32(m.cfg.StartID)
}
