package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"mlpfusion/nn"
)

// family is one kind of transformer. Each is a file that registers it.
type family struct {
	// arch turns the family's keys of config.json into a description.
	arch func(r *reader) *Arch
	// aliases are other names of keys: alias to name.
	aliases map[string]string
	// prefix of the names of all tensors but the head's; a base model saved
	// alone leaves it out.
	prefix string
	// architectures are the classes of transformers that load the model, by its
	// head; the family has no other heads.
	architectures map[Head]string
	// config is the class that reads config.json where transformers has none for the
	// family; it and the others are in python/mlpfusion/modeling_mlpfusion.py then.
	config string
	// head is that of checkpoints which name none of the architectures.
	head Head
	// widthKey is the key of config.json that holds the intermediate size.
	widthKey string
	// unused lists parts of tensor names that a checkpoint may hold and the
	// model does not use, such as the head of pre-training; buffers those that hold
	// nothing learnt.
	unused, buffers []string
}

// network is the forward pass of a built family.
type network interface {
	// embed returns the state that enters layer 0.
	embed(t *nn.Tape, in *Input) State
	// layer returns the state after layer i, given that before it, with the
	// final normalisation where the family has one. rows are those that are
	// wanted of the last layer, in ascending order, and are then all that the
	// result has; nil stands for all.
	layer(t *nn.Tape, i int, s State, in *Input, rows []int32) State
	// readRows calls f with each embedding table and the rows read.
	readRows(in *Input, f func(table *nn.Weight, rows []int32))
	// cache makes the caches that a language model's layers need.
	cache(c *Cache)
}

var families = map[string]*family{}

// register adds a family under its model_type.
func register(modelType string, f *family) { families[modelType] = f }

func familyOf(modelType string) (*family, error) {
	if f, ok := families[modelType]; ok {
		return f, nil
	}
	names := slices.Sorted(maps.Keys(families))
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

// heads names the classes of transformers that load a model: one with a head for
// labels and one with a language model's, "" where there is none.
func heads(labels, language string) map[Head]string {
	m := map[Head]string{Classification: labels, Regression: labels}
	if language != "" {
		m[LanguageModel] = language
	}
	return m
}

// AutoClasses names, by transformers' auto classes, the classes that load the model: with
// the heads that its family has, without a head, and, where transformers has none, that
// of its configuration.
func (c *Config) AutoClasses() map[string]string {
	heads := families[c.Type].architectures
	m := map[string]string{}
	if class, ok := heads[Classification]; ok {
		m["AutoModel"] = strings.TrimSuffix(class, "ForSequenceClassification") + "Model"
		m["AutoModelForSequenceClassification"] = class
	} else {
		m["AutoModel"] = strings.TrimSuffix(heads[LanguageModel], "ForCausalLM") + "Model"
	}
	language := "AutoModelForCausalLM"
	if c.TwoStacks() {
		language = "AutoModelForSeq2SeqLM"
	}
	if class, ok := heads[LanguageModel]; ok {
		m[language] = class
	}
	if class := families[c.Type].config; class != "" {
		m["AutoConfig"] = class
	}
	return m
}
