package model

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// bertNames are the tensor names in which the BERT-like families differ.
type bertNames struct {
	layers                         string
	query, key, value, attnOut     string
	attnNorm, up, down, outputNorm string
	block                          string // the MLP within a layer, "" for the layer itself
}

var (
	bertLayer = bertNames{
		layers: "encoder.layer.", query: "attention.self.query", key: "attention.self.key", value: "attention.self.value",
		attnOut: "attention.output.dense", attnNorm: "attention.output.LayerNorm",
		up: "intermediate.dense", down: "output.dense", outputNorm: "output.LayerNorm",
	}
	distilbertLayer = bertNames{
		layers: "transformer.layer.", query: "attention.q_lin", key: "attention.k_lin", value: "attention.v_lin",
		attnOut: "attention.out_lin", attnNorm: "sa_layer_norm",
		up: "ffn.lin1", down: "ffn.lin2", outputNorm: "output_layer_norm", block: ".ffn",
	}
)

// classifiers names the one class for both heads of an encoder.
func classifiers(architecture string) map[Head]string {
	return map[Head]string{Classification: architecture, Regression: architecture}
}

// BERT, and MiniLM, which has its layout.
var bertFamily = &family{
	prefix:        "bert.",
	architectures: classifiers("BertForSequenceClassification"),
	head:          Classification,
	widthKey:      "intermediate_size",
	config:        bertConfig,
	unused:        []string{"embeddings.position_ids", "cls.predictions.", "cls.seq_relationship."},
	build: func(b *builder) network {
		n := newBert(b, "bert.", bertLayer)
		b.head = true
		h := b.cfg.Hidden
		n.pre, n.preAct = b.linear(h, h, "bert.pooler.dense"), kernel.Tanh
		n.classifier = b.linear(h, len(b.cfg.Labels), "classifier")
		return n
	},
}

// RoBERTa counts positions from pad_token_id + 1 and has its own head.
var robertaFamily = &family{
	prefix:        "roberta.",
	architectures: classifiers("RobertaForSequenceClassification"),
	head:          Classification,
	widthKey:      "intermediate_size",
	config:        robertaConfig,
	unused:        []string{"embeddings.position_ids", "lm_head.", "pooler.dense."},
	build: func(b *builder) network {
		n := newBert(b, "roberta.", bertLayer)
		n.firstPosition = int32(b.cfg.FirstPosition)
		n.noTypeIDs = true
		b.head = true
		h := b.cfg.Hidden
		n.headDropFirst = true
		n.pre, n.preAct = b.linear(h, h, "classifier.dense"), kernel.Tanh
		n.classifier = b.linear(h, len(b.cfg.Labels), "classifier.out_proj")
		return n
	},
}

// DistilBERT has no token types.
var distilbertFamily = &family{
	prefix:        "distilbert.",
	architectures: classifiers("DistilBertForSequenceClassification"),
	head:          Classification,
	widthKey:      "hidden_dim",
	config:        distilbertConfig,
	unused:        []string{"vocab_transform.", "vocab_layer_norm.", "vocab_projector."},
	build: func(b *builder) network {
		n := newBert(b, "distilbert.", distilbertLayer)
		b.head = true
		h := b.cfg.Hidden
		n.pre, n.preAct = b.linear(h, h, "pre_classifier"), kernel.ReLU
		n.classifier = b.linear(h, len(b.cfg.Labels), "classifier")
		return n
	},
}

func bertConfig(h *hfConfig, r *configReader) *Config {
	c := &Config{
		Hidden: r.required("hidden_size", h.HiddenSize), Layers: r.required("num_hidden_layers", h.NumLayers),
		Heads: r.required("num_attention_heads", h.NumHeads), Intermediate: r.required("intermediate_size", h.Intermediate),
		Act: r.act("hidden_act", h.HiddenAct, "gelu"), Vocab: r.required("vocab_size", h.VocabSize),
		Positions: orDefault(h.MaxPositions, 512), Types: orDefault(h.TypeVocab, 2), PadID: orDefault(h.PadTokenID, 0),
		Eps: float32(orDefault(h.LayerNormEps, 1e-12)), InitStd: float32(orDefault(h.InitializerRange, 0.02)),
		Dropout: Dropout{HiddenDrop: float32(orDefault(h.HiddenDropout, 0.1)), AttnDrop: float32(orDefault(h.AttnDropout, 0.1))},
	}
	c.EmbedDrop = c.HiddenDrop
	c.HeadDrop = float32(orDefault(h.ClassifierDropout, float64(c.HiddenDrop)))
	if p := orDefault(h.PositionType, "absolute"); p != "absolute" {
		r.fail("position_embedding_type: expected \"absolute\", found %q", p)
	}
	if h.IsDecoder {
		r.fail("is_decoder: expected false, found true")
	}
	if c.Types < 1 {
		r.fail("type_vocab_size: expected at least 1, found %d", c.Types)
	}
	return c
}

func robertaConfig(h *hfConfig, r *configReader) *Config {
	c := bertConfig(h, r)
	c.FirstPosition = c.PadID + 1
	return c
}

func distilbertConfig(h *hfConfig, r *configReader) *Config {
	return &Config{
		Hidden: r.required("dim", h.Dim), Layers: r.required("n_layers", h.NLayers),
		Heads: r.required("n_heads", h.NHeads), Intermediate: r.required("hidden_dim", h.HiddenDim),
		Act: r.act("activation", h.Activation, "gelu"), Vocab: r.required("vocab_size", h.VocabSize),
		Positions: orDefault(h.MaxPositions, 512), PadID: orDefault(h.PadTokenID, 0),
		Eps: 1e-12, InitStd: float32(orDefault(h.InitializerRange, 0.02)),
		Dropout: Dropout{EmbedDrop: float32(orDefault(h.Dropout, 0.1)), HiddenDrop: float32(orDefault(h.Dropout, 0.1)),
			AttnDrop: float32(orDefault(h.AttentionDropout, 0.1)), HeadDrop: float32(orDefault(h.SeqClassifDropout, 0.2))},
	}
}

// bert is the network of all BERT-like families.
type bert struct {
	cfg           *Config
	tables        []*nn.Weight // word, position and type embeddings
	norm          *nn.Norm
	layers        []*bertBlock
	pre           *nn.Linear // the pooler, or the first layer of the head
	preAct        kernel.Activation
	classifier    *nn.Linear
	firstPosition int32
	noTypeIDs     bool // all token types are 0
	headDropFirst bool // dropout before pre as well as after it

	positions, types, queries []int32
}

type bertBlock struct {
	qkv      *nn.Linear // query, key and value stacked
	q, kv    *nn.Linear // the last layer's, apart: only first tokens are queries there
	out      *nn.Linear
	attnNorm *nn.Norm
	mlp      *MLP
	norm     *nn.Norm
}

func newBert(b *builder, prefix string, n bertNames) *bert {
	c := b.cfg
	m := &bert{cfg: c, noTypeIDs: c.Types == 1} // one type: every token has it
	e := prefix + "embeddings."
	m.tables = append(m.tables, b.embedding(c.Vocab, e+"word_embeddings.weight"), b.embedding(c.Positions, e+"position_embeddings.weight"))
	if c.Types > 0 {
		m.tables = append(m.tables, b.embedding(c.Types, e+"token_type_embeddings.weight"))
	}
	m.norm = b.norm(e + "LayerNorm")
	for i := range c.Layers {
		name := fmt.Sprintf("%s%s%d", prefix, n.layers, i)
		at := func(s string) string { return name + "." + s }
		l := &bertBlock{qkv: b.linear(c.Hidden, c.Hidden, at(n.query), at(n.key), at(n.value))}
		l.out = b.linear(c.Hidden, c.Hidden, at(n.attnOut))
		l.attnNorm = b.norm(at(n.attnNorm))
		l.mlp = b.mlp(Block{Name: name + n.block, Layer: i, Depth: i, Up: at(n.up), Down: at(n.down), Bias: true})
		l.norm = b.norm(at(n.outputNorm))
		if i == c.Layers-1 && b.alloc {
			l.q, l.kv = b.split(l.qkv)
			l.qkv = nil
		}
		m.layers = append(m.layers, l)
	}
	return m
}

func (m *bert) depth() int { return len(m.layers) }

func (m *bert) embed(t *nn.Tape, in *Input) State {
	x := t.Embed(m.tables, m.ids(in))
	return State{X: t.Dropout(t.AddNorm(x, nil, m.norm, 0), m.cfg.EmbedDrop)}
}

// layer runs encoder layer i. Of the last, only the first token of each
// sequence is wanted for classification: its query, attention output and MLP
// are then computed for that token alone, and keys and values for none, which is
// exact.
func (m *bert) layer(t *nn.Tape, i int, s State, in *Input, rows []int32) State {
	c, l := m.cfg, m.layers[i]
	h, x := c.Hidden, s.X
	opt := nn.AttentionOptions{Heads: c.Heads, Dim: h / c.Heads, Drop: c.AttnDrop}
	residual, queries := x, in.Offsets
	var ctx *nn.Tensor
	switch {
	case l.qkv != nil:
		qkv := nn.Heads{X: t.Linear(x, l.qkv, kernel.Identity, nil)}
		ctx = t.Attention(qkv, nn.Heads{X: qkv.X, Start: h}, nn.Heads{X: qkv.X, Start: 2 * h}, queries, in.Offsets, opt)
	case rows != nil:
		queries = m.counting(len(in.Offsets))
		residual = t.Rows(x, rows)
		ctx = t.AttendOne(t.Linear(residual, l.q, kernel.Identity, nil), x, l.kv, in.Offsets, opt)
	default:
		q, kv := nn.Heads{X: t.Linear(x, l.q, kernel.Identity, nil)}, nn.Heads{X: t.Linear(x, l.kv, kernel.Identity, nil)}
		ctx = t.Attention(q, kv, nn.Heads{X: kv.X, Start: h}, queries, in.Offsets, opt)
	}
	x = t.AddNorm(t.Linear(ctx, l.out, kernel.Identity, nil), residual, l.attnNorm, c.HiddenDrop)
	return State{X: t.AddNorm(l.mlp.forward(t, x, queries, 0), x, l.norm, c.HiddenDrop)}
}

func (m *bert) logits(t *nn.Tape, x *nn.Tensor) *nn.Tensor {
	if m.headDropFirst {
		x = t.Dropout(x, m.cfg.HeadDrop)
	}
	x = t.Dropout(t.Linear(x, m.pre, m.preAct, nil), m.cfg.HeadDrop)
	return t.Linear(x, m.classifier, kernel.Identity, nil)
}

func (m *bert) vocabulary() (*nn.Weight, float32) { panic("model: no language model") }

// ids returns the rows of the embedding tables for each token.
func (m *bert) ids(in *Input) (ids [nn.MaxTables][]int32) {
	m.positions = m.positions[:0]
	for i := range len(in.Offsets) - 1 {
		for p := range in.Offsets[i+1] - in.Offsets[i] {
			m.positions = append(m.positions, p+m.firstPosition)
		}
	}
	ids[0], ids[1] = in.IDs, m.positions
	if len(m.tables) == 3 {
		ids[2] = in.Types
		if m.noTypeIDs || in.Types == nil {
			for len(m.types) < len(in.IDs) {
				m.types = append(m.types, 0)
			}
			ids[2] = m.types[:len(in.IDs)]
		}
	}
	return ids
}

func (m *bert) readRows(in *Input, f func(table *nn.Weight, rows []int32)) {
	ids := m.ids(in)
	for i, w := range m.tables {
		f(w, ids[i])
	}
}

func (m *bert) usesTypes() bool { return len(m.tables) == 3 && !m.noTypeIDs }

// counting returns 0, 1, … n-1: the offsets of sequences of one token.
func (m *bert) counting(n int) []int32 {
	for len(m.queries) < n {
		m.queries = append(m.queries, int32(len(m.queries)))
	}
	return m.queries[:n]
}
