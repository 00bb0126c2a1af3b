package model

import (
	"fmt"

	"mlpfusion/checkpoint"
)

// Config is a model: what its family makes of config.json, its head and the forms
// of its fused MLPs.
type Config struct {
	Type string // model_type
	Arch
	Head   Head
	Labels []string               // class names; one for regression, none for a language model
	Blocks map[string]BlockConfig // fused MLPs by block name
	Notes  []string               // sentences that tell what was made of unclear files

	// Adapter has low-rank paths beside matrices, of which alone, and of the modules that
	// it saves, training is then; nil: none.
	Adapter *checkpoint.Adapter
	// Base says how matrices are kept, of which then none is trained but what Adapter does.
	Base Base
}

// Base is how matrices that are not trained lie in memory.
type Base string

const (
	BaseFP32 Base = ""
	BaseBF16 Base = "bf16"
	BaseInt8 Base = "int8" // whole numbers and a factor for each row, see kernel.ToInt8
)

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
	Width        int
	Rank         int  // > 0: each matrix is two factors of this rank (method svd)
	Masked       bool // zero weights stay zero in training (method magnitude)
	ClusterSizes bool // a tensor <block>.mlp_scale holds P
	StepSizes    bool // a tensor <block>.mlp_step holds the units' step sizes
	// Apart tells that an expert has tensors of its own even where the family keeps a
	// layer's experts in stacks: each may have P then, and a width of its own.
	Apart bool
	// Weights is the block whose matrices this one uses, one before it; "" when
	// it has its own.
	Weights string
}

// ParseConfig reads the text of config.json. The errors name the key, what was
// expected and what was found.
func ParseConfig(text []byte) (*Config, error) {
	r := newReader(text)
	var k struct {
		ModelType     string            `json:"model_type"`
		Architectures []string          `json:"architectures"`
		ID2Label      map[string]string `json:"id2label"`
		NumLabels     *int              `json:"num_labels"`
		ProblemType   *string           `json:"problem_type"`
	}
	r.decode(&k)
	if r.err != nil {
		return nil, r.err
	}
	f, err := familyOf(k.ModelType)
	if err != nil {
		return nil, err
	}
	c := &Config{Type: k.ModelType, Arch: *f.arch(r.rename(f.aliases)), Head: f.savedHead(k.Architectures)}
	if c.LogitScale == 0 {
		c.LogitScale = 1
	}
	if c.Head == Classification {
		c.Labels = labelNames(k.ID2Label, k.NumLabels, r)
		if k.ProblemType == nil && len(c.Labels) == 1 || k.ProblemType != nil && *k.ProblemType == "regression" {
			c.Head = Regression
		}
	}
	if c.FirstPosition < 0 || c.FirstPosition >= c.Positions {
		r.fail("pad_token_id: expected an id from 0 to %d, for positions begin behind it, found %d", c.Positions-2, c.PadID)
	}
	if !(c.Eps >= 0) {
		r.fail("epsilon of the norms: expected a number of at least 0, found %g", c.Eps)
	}
	for _, p := range []float32{c.HiddenDrop, c.EmbedDrop, c.AttnDrop, c.HeadDrop} {
		if !(p >= 0 && p < 1) {
			r.fail("dropout: expected a probability below 1, found %g", p)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	c.Notes = r.notes
	return c, nil
}

// labelNames returns the names of the classes.
func labelNames(id2label map[string]string, count *int, r *reader) []string {
	n := 2 // transformers' default
	if len(id2label) > 0 {
		n = len(id2label)
	}
	if count != nil && *count != n {
		n = *count
		if len(id2label) > 0 {
			r.note("num_labels is %d, but id2label names %d: the labels are called LABEL_0 and so on", n, len(id2label))
			id2label = nil
		}
	}
	if n < 1 || n > 1<<16 {
		r.fail("num_labels: expected between 1 and %d, found %d", 1<<16, n)
		return nil
	}
	labels := make([]string, n)
	for i := range labels {
		name, ok := id2label[fmt.Sprint(i)]
		if !ok && len(id2label) > 0 {
			r.fail("id2label: expected the keys 0 to %d, found no %d", n-1, i)
		}
		if !ok {
			name = fmt.Sprintf("LABEL_%d", i)
		}
		labels[i] = name
	}
	return labels
}
