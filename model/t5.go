package model

import (
	"fmt"
	"math"
	"strings"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// T5Config is what T5 and Switch Transformers have besides the common sizes.
type T5Config struct {
	HeadDim       int // d_kv
	DecoderLayers int
	Gated         bool
	Buckets       int  // of relative positions
	MaxDistance   int  // from here on all distances share a bucket
	ScaledHead    bool // a language model's logits are multiplied by hidden^-½
	StartID       int  // the decoder's first token

	Experts                  int // of a mixture; 0 in T5
	EncoderStep, DecoderStep int // every so manieth layer is a mixture
	Capacity                 int // tokens of a sequence that an expert takes
	RouterBias               bool
	Jitter                   float32 // of what a router reads in training
	RouterZLoss, BalanceLoss float64 // their weights in the loss
}

// t5Keys are the keys of config.json that only T5 and Switch Transformers have.
type t5Keys struct {
	DModel            *int     `json:"d_model"`
	DKV               *int     `json:"d_kv"`
	DFF               *int     `json:"d_ff"`
	StackLayers       *int     `json:"num_layers"`
	DecoderLayers     *int     `json:"num_decoder_layers"`
	StackHeads        *int     `json:"num_heads"`
	Buckets           *int     `json:"relative_attention_num_buckets"`
	MaxDistance       *int     `json:"relative_attention_max_distance"`
	DropoutRate       *float64 `json:"dropout_rate"`
	InitializerFactor *float64 `json:"initializer_factor"`
	FeedForward       *string  `json:"feed_forward_proj"`
	DenseAct          *string  `json:"dense_act_fn"`
	ScaleDecoder      *bool    `json:"scale_decoder_outputs"`
	DecoderStartID    *int     `json:"decoder_start_token_id"`
	NumExperts        *int     `json:"num_experts"`
	ExpertCapacity    *int     `json:"expert_capacity"`
	SparseEncoder     *int     `json:"num_sparse_encoder_layers"`
	SparseDecoder     *int     `json:"num_sparse_decoder_layers"`
	RouterBias        bool     `json:"router_bias"`
	RouterJitter      *float64 `json:"router_jitter_noise"`
	RouterZLoss       *float64 `json:"router_z_loss_coef"`
	RouterAuxLoss     *float64 `json:"router_aux_loss_coef"`
}

// T5 (arXiv 1910.10683), v1.0 with ReLU and v1.1 gated.
var t5Family = &family{
	architectures: map[Head]string{
		Classification: "T5ForSequenceClassification", Regression: "T5ForSequenceClassification",
		LanguageModel: "T5ForConditionalGeneration",
	},
	prefix:    "transformer.",
	head:      LanguageModel,
	lastToken: true,
	widthKey:  "d_ff",
	config:    t5Config,
	unused:    t5Unused,
	build:     func(b *builder) network { return newT5(b, "transformer.", "DenseReluDense") },
}

// t5Unused are copies of the shared embeddings that older files hold, a bias
// that nothing reads, and the other head's tensors.
var t5Unused = []string{"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "layer.1.EncDecAttention.relative_attention_bias.weight", "lm_head.weight", "classification_head."}

func t5Config(h *hfConfig, r *configReader) *Config {
	act, gated := orDefault(h.FeedForward, "relu"), false
	if rest, ok := strings.CutPrefix(act, "gated-"); ok {
		act, gated = rest, true
		if act == "gelu" {
			act = "gelu_new"
		}
	}
	c := seq2seqConfig(h, r, "feed_forward_proj", act)
	c.T5.Gated = gated
	c.T5.ScaledHead = orDefault(h.ScaleDecoder, orDefault(h.Tied, true))
	return c
}

// seq2seqConfig reads what T5 and Switch name alike.
func seq2seqConfig(h *hfConfig, r *configReader, key, act string) *Config {
	c := &Config{
		Hidden: r.required("d_model", h.DModel), Layers: r.required("num_layers", h.StackLayers), Heads: r.required("num_heads", h.StackHeads),
		Intermediate: r.required("d_ff", h.DFF), Vocab: r.required("vocab_size", h.VocabSize), PadID: orDefault(h.PadTokenID, 0), EndID: r.id("eos_token_id", h.EndTokenID, 1),
		Act: r.act(key, &act, act), Positions: 1 << 16, // relative: any length will do
		Eps: float32(orDefault(h.LayerNormEpsilon, 1e-6)),
	}
	drop := float32(orDefault(h.DropoutRate, 0.1))
	c.Dropout = Dropout{EmbedDrop: drop, HiddenDrop: drop, AttnDrop: drop, HeadDrop: float32(orDefault(h.ClassifierDropout, 0))}
	t := &T5Config{
		HeadDim: orDefault(h.DKV, 64), DecoderLayers: orDefault(h.DecoderLayers, c.Layers),
		Buckets: orDefault(h.Buckets, 32), MaxDistance: orDefault(h.MaxDistance, 128),
		StartID: orDefault(h.DecoderStartID, c.PadID),
	}
	c.T5 = t
	c.InitStd = float32(orDefault(h.InitializerFactor, 1) / math.Sqrt(float64(max(1, c.Hidden))))
	for _, size := range []struct {
		key       string
		n, lowest int
	}{{"d_kv", t.HeadDim, 1}, {"num_decoder_layers", t.DecoderLayers, 1}, {"relative_attention_num_buckets", t.Buckets, 4}, {"relative_attention_max_distance", t.MaxDistance, t.Buckets/2 + 1}} {
		if size.n < size.lowest || size.n > 1<<20 {
			r.fail("%s: expected between %d and %d, found %d", size.key, size.lowest, 1<<20, size.n)
		}
	}
	for _, id := range []struct {
		key string
		n   int
	}{{"eos_token_id", c.EndID}, {"decoder_start_token_id", t.StartID}, {"pad_token_id", c.PadID}} {
		if id.n < 0 || id.n >= c.Vocab {
			r.fail("%s: expected an id below vocab_size %d, found %d", id.key, c.Vocab, id.n)
		}
	}
	if h.IsDecoder {
		r.fail("is_decoder: expected false, found true")
	}
	return c
}

// t5 is the network of T5 and Switch Transformers.
type t5 struct {
	cfg     *Config
	shared  *nn.Weight   // embeddings of encoder and decoder
	tables  []*nn.Weight // only those
	encoder *t5Stack
	decoder *t5Stack

	dense *nn.Linear // of the label head
	head  *nn.Linear // its last layer, or a language model's

	decoderIDs, decoderOffsets []int32 // where the batch has none
	rowOffsets                 []int32 // of the rows wanted of the last layer
}

// t5Stack is an encoder or a decoder.
type t5Stack struct {
	layers []*t5Block
	bias   *nn.PositionBias // of all layers' self-attention
	norm   *nn.RMSNorm      // after the last layer

	mixtures []*mixture // of its layers, where they have them
}

type t5Block struct {
	norm, crossNorm, mlpNorm *nn.RMSNorm
	qkv, out                 *nn.Linear // self-attention
	q, kv, crossOut          *nn.Linear // of the decoder's attention to the encoder's output
	mlp                      *MLP       // or
	experts                  *mixture
}

// newT5 states the tensors; mlp is the name of the MLP within its sublayer and
// prefix what the other names begin with in a model with a label head. Blocks are
// named without it, so that they keep their names when the head changes.
func newT5(b *builder, prefix, mlp string) *t5 {
	c := b.cfg
	m := &t5{cfg: c}
	if c.Head == LanguageModel {
		prefix = ""
	}
	m.shared = b.embedding(c.Vocab, prefix+"shared.weight")
	m.tables = []*nn.Weight{m.shared}
	m.encoder = b.t5Stack(prefix, "encoder", mlp, 0, c.Layers, c.T5.EncoderStep)
	m.decoder = b.t5Stack(prefix, "decoder", mlp, c.Layers, c.T5.DecoderLayers, c.T5.DecoderStep)
	b.head = true
	switch {
	case c.Head != LanguageModel:
		m.dense = b.linear(c.Hidden, c.Hidden, "classification_head.dense")
		m.head = b.linear(c.Hidden, max(1, len(c.Labels)), "classification_head.out_proj")
	case !c.Tied:
		m.head = &nn.Linear{W: b.matrix(c.Hidden, c.Vocab, "lm_head.weight")}
	default:
		m.head = &nn.Linear{W: m.shared}
		m.shared.Touched = nil // the head's gradient has no zero rows
	}
	return m
}

func (b *builder) t5Stack(prefix, name, mlp string, depth, layers, step int) *t5Stack {
	c, s := b.cfg, &t5Stack{}
	inner := c.Heads * c.T5.HeadDim
	for i := range layers {
		block := fmt.Sprintf("%s.block.%d.layer.", name, i)
		at := func(sublayer int, part string) string { return fmt.Sprintf("%s%s%d.%s", prefix, block, sublayer, part) }
		l := &t5Block{}
		l.qkv = b.plain(c.Hidden, inner, at(0, "SelfAttention.q"), at(0, "SelfAttention.k"), at(0, "SelfAttention.v"))
		l.out = b.plain(inner, c.Hidden, at(0, "SelfAttention.o"))
		if i == 0 {
			table := b.weight(c.T5.Buckets, c.Heads)
			b.state(at(0, "SelfAttention.relative_attention_bias.weight"), table, 0, c.T5.Buckets, []int{c.T5.Buckets, c.Heads}, Normal, false)
			s.bias = &nn.PositionBias{Table: table, Bidirectional: name == "encoder", MaxDistance: c.T5.MaxDistance}
		}
		l.norm = b.rmsNorm(at(0, "layer_norm"))
		last := 1
		if name == "decoder" {
			l.q = b.plain(c.Hidden, inner, at(1, "EncDecAttention.q"))
			l.kv = b.plain(c.Hidden, inner, at(1, "EncDecAttention.k"), at(1, "EncDecAttention.v"))
			l.crossOut = b.plain(inner, c.Hidden, at(1, "EncDecAttention.o"))
			l.crossNorm = b.rmsNorm(at(1, "layer_norm"))
			last = 2
		}
		place := Block{Name: fmt.Sprintf("%s%d.%s", block, last, mlp), Stack: name, Layer: i, Depth: depth + i}
		if sparse(i, step) {
			l.experts = b.mixture(prefix, place)
			s.mixtures = append(s.mixtures, l.experts)
		} else {
			l.mlp = b.t5MLP(prefix, place)
		}
		l.mlpNorm = b.rmsNorm(at(last, "layer_norm"))
		s.layers = append(s.layers, l)
	}
	s.norm = b.rmsNorm(prefix + name + ".final_layer_norm")
	return s
}

// t5MLP states the MLP of the given name and place.
func (b *builder) t5MLP(prefix string, blk Block) *MLP {
	blk.Up, blk.Down = prefix+blk.Name+".wi", prefix+blk.Name+".wo"
	if b.cfg.T5.Gated {
		blk.Gate, blk.Up = prefix+blk.Name+".wi_0", prefix+blk.Name+".wi_1"
	}
	return b.mlp(blk)
}

func (b *builder) rmsNorm(name string) *nn.RMSNorm {
	return &nn.RMSNorm{Gain: b.vector(b.cfg.Hidden, name+".weight", Ones), Eps: b.cfg.Eps}
}

func (m *t5) depth() int { return len(m.encoder.layers) + len(m.decoder.layers) }

func (m *t5) embed(t *nn.Tape, in *Input) State {
	if in.past != nil {
		return State{} // the encoder has run, and the decoder has its own embeddings
	}
	return State{X: m.lookup(t, in.IDs)}
}

func (m *t5) lookup(t *nn.Tape, ids []int32) *nn.Tensor {
	x := t.Embed(m.tables, [nn.MaxTables][]int32{ids})
	return t.Dropout(x, m.cfg.EmbedDrop)
}

// layer runs layer i, the encoder's first. The state after the encoder's last
// layer is its normalised output, and the decoder's first layer begins with the
// decoder's embeddings.
func (m *t5) layer(t *nn.Tape, i int, s State, in *Input, rows []int32) State {
	c := m.cfg
	if i < len(m.encoder.layers) {
		if in.past != nil {
			return s
		}
		x := m.sublayers(t, m.encoder, i, s, in.Offsets, nil, nil)
		if i == len(m.encoder.layers)-1 {
			x = t.Dropout(t.RMSNorm(x, m.encoder.norm), c.HiddenDrop)
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
		x = t.Dropout(t.RMSNorm(x, m.decoder.norm), c.HiddenDrop)
	}
	return State{X: x, Encoded: s.Encoded}
}

// sublayers runs layer i of a stack on the tokens of s.X, which begin at offsets;
// in is the batch for the decoder and nil for the encoder. Of the last layer only the given
// rows are wanted, unless nil; a mixture needs all of them, since tokens compete
// for its experts.
func (m *t5) sublayers(t *nn.Tape, stack *t5Stack, i int, s State, offsets []int32, in *Input, rows []int32) *nn.Tensor {
	c, l := m.cfg, stack.layers[i]
	inner := c.Heads * c.T5.HeadDim
	opt := nn.AttentionOptions{Heads: c.Heads, Dim: c.T5.HeadDim, Scale: 1, Drop: c.AttnDrop}
	self := opt
	self.Bias = stack.bias
	if in != nil {
		self.Causal, self.Past = true, in.past.layer(i)
	}
	qkv := nn.Heads{X: t.Linear(t.RMSNorm(s.X, l.norm), l.qkv, kernel.Identity, nil)}
	ctx := t.Attention(qkv, nn.Heads{X: qkv.X, Start: inner}, nn.Heads{X: qkv.X, Start: 2 * inner}, offsets, offsets, self)
	x := t.Add(t.Linear(ctx, l.out, kernel.Identity, nil), s.X, c.HiddenDrop)
	if rows != nil && l.experts == nil && len(rows) < x.Rows {
		x, offsets = t.Rows(x, rows), m.offsetsOf(rows, offsets)
		rows = nil
	}
	if in != nil {
		q := t.Linear(t.RMSNorm(x, l.crossNorm), l.q, kernel.Identity, nil)
		var ctx *nn.Tensor
		switch opt.Past = in.past.encoded(i); {
		case opt.Past != nil:
			ctx = t.Attention(nn.Heads{X: q}, nn.Heads{}, nn.Heads{}, offsets, in.Offsets, opt)
		case ones(offsets):
			ctx = t.AttendOne(q, s.Encoded, l.kv, in.Offsets, opt)
		default:
			kv := nn.Heads{X: t.Linear(s.Encoded, l.kv, kernel.Identity, nil)}
			ctx = t.Attention(nn.Heads{X: q}, kv, nn.Heads{X: kv.X, Start: inner}, offsets, in.Offsets, opt)
		}
		x = t.Add(t.Linear(ctx, l.crossOut, kernel.Identity, nil), x, c.HiddenDrop)
	}
	y := t.RMSNorm(x, l.mlpNorm)
	if l.experts != nil {
		y = l.experts.forward(t, y, offsets, c)
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

// offsetsOf returns where each sequence begins among the given rows.
func (m *t5) offsetsOf(rows, offsets []int32) []int32 {
	m.rowOffsets = m.rowOffsets[:0]
	at := 0
	for _, o := range offsets {
		for at < len(rows) && rows[at] < o {
			at++
		}
		m.rowOffsets = append(m.rowOffsets, int32(at))
	}
	return m.rowOffsets
}

// decoderInput returns the decoder's tokens. Where the batch gives none, the
// decoder reads its start token alone, but that of a T5 with a label head the text
// again, shifted by the start token, as in transformers.
func (m *t5) decoderInput(in *Input) (ids, offsets []int32) {
	if in.DecoderOffsets != nil {
		return in.DecoderIDs, in.DecoderOffsets
	}
	m.decoderIDs, m.decoderOffsets = m.decoderIDs[:0], m.decoderOffsets[:0]
	for i := range len(in.Offsets) - 1 {
		m.decoderOffsets = append(m.decoderOffsets, int32(len(m.decoderIDs)))
		m.decoderIDs = append(m.decoderIDs, int32(m.cfg.T5.StartID))
		if m.cfg.T5.Experts == 0 && m.cfg.Head != LanguageModel {
			m.decoderIDs = append(m.decoderIDs, in.IDs[in.Offsets[i]:in.Offsets[i+1]-1]...)
		}
	}
	m.decoderOffsets = append(m.decoderOffsets, int32(len(m.decoderIDs)))
	return m.decoderIDs, m.decoderOffsets
}

func (m *t5) logits(t *nn.Tape, x *nn.Tensor) *nn.Tensor {
	if m.cfg.Head == LanguageModel {
		y := t.Linear(x, m.head, kernel.Identity, nil)
		if _, scale := m.vocabulary(); scale != 1 {
			kernel.Scale(y.Data, scale)
		}
		return y
	}
	x = t.Dropout(x, m.cfg.HeadDrop)
	x = t.Dropout(t.Linear(x, m.dense, kernel.Tanh, nil), m.cfg.HeadDrop)
	return t.Linear(x, m.head, kernel.Identity, nil)
}

func (m *t5) vocabulary() (*nn.Weight, float32) {
	if m.cfg.T5.ScaledHead {
		return m.head.W, float32(1 / math.Sqrt(float64(m.cfg.Hidden)))
	}
	return m.head.W, 1
}

func (m *t5) readRows(in *Input, f func(table *nn.Weight, rows []int32)) {
	ids, _ := m.decoderInput(in)
	if m.shared.Touched != nil {
		f(m.shared, in.IDs)
		f(m.shared, ids)
	}
}

func (m *t5) cache(c *Cache) {
	c.self = nn.NewCache(len(m.decoder.layers), m.cfg.Heads, m.cfg.T5.HeadDim)
	c.cross = nn.NewCache(len(m.decoder.layers), m.cfg.Heads, m.cfg.T5.HeadDim)
}

// encode adds to the cache what the decoder's layers attend to of the encoder's
// output, and returns the decoder's first token.
func (m *t5) encode(t *nn.Tape, in *Input, c *Cache) int32 {
	s := m.embed(t, in)
	for i := range m.encoder.layers {
		s = m.layer(t, i, s, in, nil)
	}
	opt := nn.AttentionOptions{Heads: m.cfg.Heads, Dim: m.cfg.T5.HeadDim}
	for i, l := range m.decoder.layers {
		kv := t.Linear(s.X, l.kv, kernel.Identity, nil)
		opt.Past = c.encoded(i)
		t.Remember(nn.Heads{X: kv}, nn.Heads{X: kv, Start: opt.Heads * opt.Dim}, in.Offsets, opt)
	}
	return int32(m.cfg.T5.StartID)
}

func (m *t5) usesTypes() bool { return false }
