package model

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"mlpfusion/nn"
)

// family is one kind of transformer.
type family struct {
	// config reads the family's keys of config.json.
	config func(h *hfConfig, r *configReader) *Config
	// build states the tensors and returns the network.
	build func(b *builder) network
	// prefix of the names of all tensors but the head's; a base model saved
	// alone leaves it out.
	prefix string
	// architectures are the classes of transformers that load the model, by its
	// head; the family has no other heads.
	architectures map[Head]string
	// head is that of checkpoints which name none of the architectures.
	head Head
	// lastToken tells that the classifier reads the last token of a sequence,
	// not the first.
	lastToken bool
	// widthKey is the key of config.json that holds the intermediate size.
	widthKey string
	// unused lists parts of tensor names that a checkpoint may hold and the
	// model does not use, such as the head of pre-training.
	unused []string
}

// network is the forward pass of a built family.
type network interface {
	// depth is the number of layers, an encoder's and a decoder's together.
	depth() int
	// embed returns the state that enters layer 0.
	embed(t *nn.Tape, in *Input) State
	// layer returns the state after layer i, given that before it, with the
	// final normalisation where the family has one. rows are those that are
	// wanted of the last layer, in ascending order, and are then all that the
	// result has; nil stands for all.
	layer(t *nn.Tape, i int, s State, in *Input, rows []int32) State
	// logits returns the head's output for rows of the last state: (rows ×
	// labels), or (rows × vocabulary).
	logits(t *nn.Tape, x *nn.Tensor) *nn.Tensor
	// vocabulary is the matrix of a language model's head (vocabulary × hidden)
	// and what its logits are multiplied by.
	vocabulary() (w *nn.Weight, scale float32)
	// readRows calls f with each embedding table and the rows read.
	readRows(in *Input, f func(table *nn.Weight, rows []int32))
	// usesTypes tells whether token types are looked at.
	usesTypes() bool
}

var families = map[string]*family{
	"bert":                bertFamily,
	"roberta":             robertaFamily,
	"distilbert":          distilbertFamily,
	"gpt2":                gpt2Family,
	"t5":                  t5Family,
	"switch_transformers": switchFamily,
}

func familyOf(modelType string) (*family, error) {
	if f, ok := families[modelType]; ok {
		return f, nil
	}
	names := make([]string, 0, len(families))
	for n := range families {
		names = append(names, n)
	}
	sort.Strings(names)
	return nil, fmt.Errorf("config.json: model_type: expected one of %s, found %q", strings.Join(names, ", "), modelType)
}

// savedHead is the kind of head that the architectures of a config.json name.
func (f *family) savedHead(architectures []string) Head {
	for _, head := range []Head{Classification, LanguageModel} {
		if a, ok := f.architectures[head]; ok && slices.Contains(architectures, a) {
			return head
		}
	}
	return f.head
}

// checkHead tells whether the family has the head that a configuration asks for.
func checkHead(c *Config) error {
	f, err := familyOf(c.Type)
	if err != nil {
		return err
	}
	if _, ok := f.architectures[c.Head]; !ok {
		return fmt.Errorf("model_type %s: expected a task that this family has a head for, found one for a %s head", c.Type, c.Head)
	}
	return nil
}

// WidthKey is the key of config.json that holds a family's intermediate size.
func WidthKey(modelType string) string { return families[modelType].widthKey }
