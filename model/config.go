package model

import (
	"encoding/json"
	"fmt"

	"mlpfusion/internal/choice"
	"mlpfusion/kernel"
)

// Config is what the families need of config.json, under one set of names.
type Config struct {
	Type          string // model_type
	Hidden        int    // hidden size p
	Layers        int
	Heads         int
	Intermediate  int // hidden units of an MLP before fusion, p_I
	Act           kernel.Activation
	Vocab         int
	Positions     int
	FirstPosition int // of a sequence
	Types         int // token types; 0: none
	PadID         int
	EndID         int     // of the token that ends a text; of language models
	Eps           float32 // of LayerNorm
	InitStd       float32
	Dropout
	AttnScaled        bool // scores are divided by the root of a head's width
	AttnScaledByLayer bool // and by the layer's number from 1
	Tied              bool // the language model's head is the word embeddings
	Head              Head
	Labels            []string               // class names; one for regression, none for a language model
	Blocks            map[string]BlockConfig // fused MLPs by block name
	T5                *T5Config              // of T5 and Switch Transformers; else nil
}

// MaxLength is the largest number of tokens of a sequence.
func (c *Config) MaxLength() int { return c.Positions - c.FirstPosition }

// Dropout are the probabilities of dropout in training.
type Dropout struct {
	EmbedDrop  float32 // after the embeddings
	HiddenDrop float32 // before each addition to the residual
	AttnDrop   float32 // of attention probabilities
	HeadDrop   float32 // before the classifier
}

// Head is what a model computes from its last states.
type Head int

const (
	// AsSaved is, as a choice, the head of the checkpoint.
	AsSaved Head = iota
	// Classification gives a logit for each label.
	Classification
	// Regression gives one number.
	Regression
	// LanguageModel gives a logit for each word of the vocabulary that may come
	// next.
	LanguageModel
)

func (h Head) String() string {
	return [...]string{"saved", "classification", "regression", "language-model"}[h]
}

// BlockConfig is the form of one fused MLP in a checkpoint.
type BlockConfig struct {
	Width  int
	Rank   int  // > 0: each matrix is two factors of this rank (method svd)
	Masked bool // zero weights stay zero in training (method magnitude)
	Scale  bool // a tensor <block>.mlp_scale holds P
	Step   bool // a tensor <block>.mlp_step holds step multipliers
	// Weights is the block whose matrices this one uses, one before it; "" when
	// it has its own.
	Weights string
}

// hfConfig is config.json as transformers writes it.
type hfConfig struct {
	ModelType         string            `json:"model_type"`
	Architectures     []string          `json:"architectures"`
	LayerNormEpsilon  *float64          `json:"layer_norm_epsilon"`
	Tied              *bool             `json:"tie_word_embeddings"`
	HiddenSize        *int              `json:"hidden_size"`
	Dim               *int              `json:"dim"`
	NumLayers         *int              `json:"num_hidden_layers"`
	NLayers           *int              `json:"n_layers"`
	NumHeads          *int              `json:"num_attention_heads"`
	NHeads            *int              `json:"n_heads"`
	Intermediate      *int              `json:"intermediate_size"`
	HiddenDim         *int              `json:"hidden_dim"`
	HiddenAct         *string           `json:"hidden_act"`
	Activation        *string           `json:"activation"`
	VocabSize         *int              `json:"vocab_size"`
	MaxPositions      *int              `json:"max_position_embeddings"`
	TypeVocab         *int              `json:"type_vocab_size"`
	PadTokenID        *int              `json:"pad_token_id"`
	EndTokenID        json.RawMessage   `json:"eos_token_id"`
	LayerNormEps      *float64          `json:"layer_norm_eps"`
	InitializerRange  *float64          `json:"initializer_range"`
	HiddenDropout     *float64          `json:"hidden_dropout_prob"`
	Dropout           *float64          `json:"dropout"`
	AttnDropout       *float64          `json:"attention_probs_dropout_prob"`
	AttentionDropout  *float64          `json:"attention_dropout"`
	ClassifierDropout *float64          `json:"classifier_dropout"`
	SeqClassifDropout *float64          `json:"seq_classif_dropout"`
	PositionType      *string           `json:"position_embedding_type"`
	SinusoidalPos     bool              `json:"sinusoidal_pos_embds"`
	IsDecoder         bool              `json:"is_decoder"`
	ID2Label          map[string]string `json:"id2label"`
	NumLabels         *int              `json:"num_labels"`
	ProblemType       *string           `json:"problem_type"`
	gpt2Keys
	t5Keys
}

// activations are the names config.json uses.
var activations = map[string]kernel.Activation{
	"gelu": kernel.GELU, "gelu_new": kernel.GELUTanh, "gelu_pytorch_tanh": kernel.GELUTanh,
	"relu": kernel.ReLU, "silu": kernel.SiLU, "swish": kernel.SiLU, "tanh": kernel.Tanh,
}

// ParseConfig reads the text of config.json. The errors name the key, what was
// expected and what was found.
func ParseConfig(text []byte) (*Config, error) {
	var h hfConfig
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, fmt.Errorf("config.json: %w", choice.JSONType(err))
	}
	f, err := familyOf(h.ModelType)
	if err != nil {
		return nil, err
	}
	r := configReader{}
	c := f.config(&h, &r)
	c.Type = h.ModelType
	c.Head = f.savedHead(h.Architectures)
	if c.Head == Classification {
		c.Labels = labelNames(&h, &r)
		if orDefault(h.ProblemType, "") == "regression" || h.ProblemType == nil && len(c.Labels) == 1 {
			c.Head = Regression
		}
	}
	const most, mostLayers = 1 << 24, 1 << 12 // far beyond what there is, and soon walked through
	for _, size := range []struct {
		key     string
		n, most int
	}{{"hidden size", c.Hidden, most}, {"number of layers", c.Layers, mostLayers}, {"number of heads", c.Heads, most}, {"intermediate size", c.Intermediate, most},
		{"vocab_size", c.Vocab, most}, {"max_position_embeddings", c.Positions, most}} {
		if size.n < 1 || size.n > size.most {
			r.fail("%s: expected between 1 and %d, found %d", size.key, size.most, size.n)
		}
	}
	if c.FirstPosition < 0 || c.FirstPosition >= c.Positions {
		r.fail("pad_token_id: expected an id from 0 to %d, for positions begin behind it, found %d", c.Positions-2, c.PadID)
	}
	if !(c.Eps >= 0) {
		r.fail("epsilon of the norms: expected a number of at least 0, found %g", c.Eps)
	}
	if c.T5 == nil && c.Heads > 0 && c.Hidden%c.Heads != 0 {
		r.fail("hidden size: expected a multiple of the %d attention heads, found %d", c.Heads, c.Hidden)
	}
	for _, p := range []float32{c.HiddenDrop, c.EmbedDrop, c.AttnDrop, c.HeadDrop} {
		if !(p >= 0 && p < 1) {
			r.fail("dropout: expected a probability below 1, found %g", p)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return c, nil
}

func labelNames(h *hfConfig, r *configReader) []string {
	n := 2 // transformers' default
	if h.NumLabels != nil {
		n = *h.NumLabels
	}
	if len(h.ID2Label) > 0 {
		n = len(h.ID2Label)
	}
	if n < 1 || n > 1<<16 {
		r.fail("num_labels: expected between 1 and %d, found %d", 1<<16, n)
		return nil
	}
	labels := make([]string, n)
	for i := range labels {
		name, ok := h.ID2Label[fmt.Sprint(i)]
		if !ok && len(h.ID2Label) > 0 {
			r.fail("id2label: expected the keys 0 to %d, found no %d", n-1, i)
		}
		if !ok {
			name = fmt.Sprintf("LABEL_%d", i)
		}
		labels[i] = name
	}
	return labels
}

// configReader collects the first thing wrong with a config.json.
type configReader struct{ err error }

func (r *configReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("config.json: "+format, args...)
	}
}

// required returns the value of a key that has no default.
func (r *configReader) required(key string, v *int) int {
	if v == nil {
		r.fail("%s: expected a number, found nothing", key)
		return 0
	}
	return *v
}

// id returns a token's id: the first where the key has several.
func (r *configReader) id(key string, v json.RawMessage, otherwise int) int {
	if len(v) == 0 || string(v) == "null" {
		return otherwise
	}
	var one int
	var several []int
	switch {
	case json.Unmarshal(v, &one) == nil:
		return one
	case json.Unmarshal(v, &several) == nil && len(several) > 0:
		return several[0]
	}
	r.fail("%s: expected an id or a list of ids, found %s", key, v)
	return otherwise
}

func (r *configReader) act(key string, v *string, otherwise string) kernel.Activation {
	name := orDefault(v, otherwise)
	a, ok := activations[name]
	if !ok {
		r.fail("%s: expected one of gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh, found %q", key, name)
	}
	return a
}

func orDefault[T any](v *T, otherwise T) T {
	if v == nil {
		return otherwise
	}
	return *v
}
