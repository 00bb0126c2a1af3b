package model

import (
	"fmt"
	"math"
	"strings"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// GPT-2, and DistilGPT-2, which is one with fewer layers.
var gpt2Family = &family{
	prefix: "transformer.",
	architectures: map[Head]string{
		LanguageModel:  "GPT2LMHeadModel",
		Classification: "GPT2ForSequenceClassification", Regression: "GPT2ForSequenceClassification",
	},
	head:      LanguageModel,
	lastToken: true,
	widthKey:  "n_inner",
	config:    gpt2Config,
	// The causal masks of old checkpoints, and the heads of other tasks.
	unused: []string{".attn.bias", ".attn.masked_bias", "lm_head.", "score.", "multiple_choice_head."},
	build:  func(b *builder) network { return newGPT2(b) },
}

// gpt2Keys are the keys of config.json that only GPT-2 has.
type gpt2Keys struct {
	NEmbd              *int     `json:"n_embd"`
	NLayer             *int     `json:"n_layer"`
	NHead              *int     `json:"n_head"`
	NInner             *int     `json:"n_inner"`
	NPositions         *int     `json:"n_positions"`
	ActivationFunction *string  `json:"activation_function"`
	ResidDrop          *float64 `json:"resid_pdrop"`
	EmbdDrop           *float64 `json:"embd_pdrop"`
	AttnPDrop          *float64 `json:"attn_pdrop"`
	ScaleAttn          *bool    `json:"scale_attn_weights"`
	ScaleAttnByLayer   bool     `json:"scale_attn_by_inverse_layer_idx"`
	CrossAttention     bool     `json:"add_cross_attention"`
}

func gpt2Config(h *hfConfig, r *configReader) *Config {
	c := &Config{
		Hidden: orDefault(h.NEmbd, 768), Layers: orDefault(h.NLayer, 12), Heads: orDefault(h.NHead, 12),
		Act: r.act("activation_function", h.ActivationFunction, "gelu_new"), Vocab: orDefault(h.VocabSize, 50257),
		Positions: orDefault(h.NPositions, 1024), PadID: orDefault(h.PadTokenID, 0), EndID: r.id("eos_token_id", h.EndTokenID, 50256),
		Eps: float32(orDefault(h.LayerNormEpsilon, 1e-5)), InitStd: float32(orDefault(h.InitializerRange, 0.02)),
		Dropout:    Dropout{EmbedDrop: float32(orDefault(h.EmbdDrop, 0.1)), HiddenDrop: float32(orDefault(h.ResidDrop, 0.1)), AttnDrop: float32(orDefault(h.AttnPDrop, 0.1))},
		AttnScaled: orDefault(h.ScaleAttn, true), AttnScaledByLayer: h.ScaleAttnByLayer, Tied: orDefault(h.Tied, true),
	}
	// reorder_and_upcast_attn changes nothing where attention is float32 anyway.
	c.Intermediate = orDefault(h.NInner, 4*c.Hidden)
	if h.CrossAttention {
		r.fail("add_cross_attention: expected false, found true")
	}
	return c
}

type gpt2 struct {
	cfg    *Config
	tables []*nn.Weight // word and position embeddings
	layers []*gpt2Block
	final  *nn.Norm
	head   *nn.Linear // the vocabulary's, or the classifier

	positions      []int32
	queries, after []int32 // of the last layer, see readout
	picked         []int32
}

type gpt2Block struct {
	attnNorm, mlpNorm *nn.Norm
	qkv               *nn.Linear // query, key and value stacked
	q, kv             *nn.Linear // a classifier's last, apart: only last tokens are queries there
	out               *nn.Linear
	mlp               *MLP
	scale             float32 // of the attention scores
}

func newGPT2(b *builder) *gpt2 {
	c := b.cfg
	m := &gpt2{cfg: c}
	m.tables = []*nn.Weight{b.embedding(c.Vocab, "transformer.wte.weight"), b.embedding(c.Positions, "transformer.wpe.weight")}
	b.conv = true
	for i := range c.Layers {
		name := fmt.Sprintf("transformer.h.%d.", i)
		l := &gpt2Block{scale: 1}
		if c.AttnScaled {
			l.scale = float32(1 / math.Sqrt(float64(c.Hidden/c.Heads)))
		}
		if c.AttnScaledByLayer {
			l.scale /= float32(i + 1)
		}
		l.attnNorm = b.norm(name + "ln_1")
		l.qkv = b.linear(c.Hidden, 3*c.Hidden, name+"attn.c_attn")
		l.out = b.linear(c.Hidden, c.Hidden, name+"attn.c_proj")
		l.mlpNorm = b.norm(name + "ln_2")
		if i == c.Layers-1 && c.Head != LanguageModel && b.alloc {
			l.q, l.kv = b.split(l.qkv)
			l.qkv = nil
		}
		l.mlp = b.mlp(Block{Name: name + "mlp", Layer: i, Depth: i, Up: name + "mlp.c_fc", Down: name + "mlp.c_proj", Bias: true})
		m.layers = append(m.layers, l)
	}
	b.conv = false
	for i := range b.tensors {
		if strings.HasSuffix(b.tensors[i].Name, "c_proj.weight") {
			b.tensors[i].Init = Residual
		}
	}
	m.final = b.norm("transformer.ln_f")
	b.head = true
	switch {
	case c.Head != LanguageModel:
		m.head = &nn.Linear{W: b.matrix(c.Hidden, len(c.Labels), "score.weight")}
	case c.Tied:
		m.head = &nn.Linear{W: m.tables[0]}
		m.tables[0].Touched = nil // every row's gradient is written
	default:
		m.head = &nn.Linear{W: b.matrix(c.Hidden, c.Vocab, "lm_head.weight")}
	}
	return m
}

func (m *gpt2) depth() int { return len(m.layers) }

func (m *gpt2) embed(t *nn.Tape, in *Input) State {
	return State{X: t.Dropout(t.Embed(m.tables, m.ids(in)), m.cfg.EmbedDrop)}
}

// layer runs decoder layer i. Of the last, the head reads some rows only: each
// sequence's queries begin at the first of those, and the MLP runs on no others.
func (m *gpt2) layer(t *nn.Tape, i int, s State, in *Input, rows []int32) State {
	c, l, x := m.cfg, m.layers[i], s.X
	normed, offsets := t.AddNorm(x, nil, l.attnNorm, 0), in.Offsets
	if rows != nil {
		m.readout(rows, in.Offsets)
		offsets = m.after
		x = t.Rows(x, rows)
	}
	x = t.Add(t.Linear(m.attend(t, i, normed, in, rows), l.out, kernel.Identity, nil), x, c.HiddenDrop)
	l.mlp.Residual = x
	y := l.mlp.forward(t, t.AddNorm(x, nil, l.mlpNorm, 0), offsets, 0)
	if i == len(m.layers)-1 {
		return State{X: t.AddNorm(y, x, m.final, c.HiddenDrop)}
	}
	return State{X: t.Add(y, x, c.HiddenDrop)}
}

// attend returns the attention of layer i for the given rows of x, or for all.
func (m *gpt2) attend(t *nn.Tape, i int, x *nn.Tensor, in *Input, rows []int32) *nn.Tensor {
	c, l := m.cfg, m.layers[i]
	opt := nn.AttentionOptions{Heads: c.Heads, Dim: c.Hidden / c.Heads, Causal: true, Scale: l.scale, Drop: c.AttnDrop, Past: in.past.layer(i)}
	if l.qkv == nil {
		if rows != nil { // the last tokens, which see all
			return t.AttendOne(t.Linear(t.Rows(x, rows), l.q, kernel.Identity, nil), x, l.kv, in.Offsets, opt)
		}
		q, kv := nn.Heads{X: t.Linear(x, l.q, kernel.Identity, nil)}, nn.Heads{X: t.Linear(x, l.kv, kernel.Identity, nil)}
		return t.Attention(q, kv, nn.Heads{X: kv.X, Start: c.Hidden}, in.Offsets, in.Offsets, opt)
	}
	qkv := nn.Heads{X: t.Linear(x, l.qkv, kernel.Identity, nil)}
	queries := in.Offsets
	if rows != nil {
		queries, opt.LastQueries = m.queries, true
	}
	ctx := t.Attention(qkv, nn.Heads{X: qkv.X, Start: c.Hidden}, nn.Heads{X: qkv.X, Start: 2 * c.Hidden}, queries, in.Offsets, opt)
	if rows != nil && ctx.Rows > len(rows) {
		ctx = t.Rows(ctx, m.picked)
	}
	return ctx
}

// readout finds, for ascending rows of packed sequences, how the queries from
// each sequence's first such row to its end lie packed (queries), how the rows
// themselves do (after), and which of those queries they are (picked).
func (m *gpt2) readout(rows, offsets []int32) {
	m.queries, m.after, m.picked = append(m.queries[:0], 0), append(m.after[:0], 0), m.picked[:0]
	k := 0
	for i, end := range offsets[1:] {
		first := end
		for ; k < len(rows) && rows[k] < end; k++ {
			first = min(first, rows[k])
			m.picked = append(m.picked, m.queries[i]+rows[k]-first)
		}
		m.queries = append(m.queries, m.queries[i]+end-first)
		m.after = append(m.after, int32(k))
	}
}

func (m *gpt2) logits(t *nn.Tape, x *nn.Tensor) *nn.Tensor {
	return t.Linear(x, m.head, kernel.Identity, nil)
}

func (m *gpt2) vocabulary() (*nn.Weight, float32) { return m.head.W, 1 }

// ids returns the rows of the embedding tables for each token.
func (m *gpt2) ids(in *Input) (ids [nn.MaxTables][]int32) {
	m.positions = m.positions[:0]
	for i := range len(in.Offsets) - 1 {
		start := in.past.tokens(i)
		for p := range in.Offsets[i+1] - in.Offsets[i] {
			m.positions = append(m.positions, start+p)
		}
	}
	ids[0], ids[1] = in.IDs, m.positions
	return ids
}

func (m *gpt2) readRows(in *Input, f func(table *nn.Weight, rows []int32)) {
	ids := m.ids(in)
	for i, w := range m.tables {
		f(w, ids[i])
	}
}

func (m *gpt2) cache(c *Cache) {
	c.self = nn.NewCache(len(m.layers), m.cfg.Heads, m.cfg.Hidden/m.cfg.Heads)
}

func (m *gpt2) usesTypes() bool { return false }
