package model

import (
	"fmt"
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
	// architecture is the class of transformers that loads the model.
	architecture string
	// widthKey is the key of config.json that holds the intermediate size.
	widthKey string
	// unused lists endings of tensor names that a checkpoint may hold and
	// classification does not use, such as the head of pre-training.
	unused []string
}

// network is the forward pass of a built family.
type network interface {
	// forward returns the logits (sequences × labels).
	forward(t *nn.Tape, in *Input, out *Output)
	// embed and layer are the parts of forward up to the last layer's states
	// (tokens × hidden); firstOnly asks for those of first tokens only.
	embed(t *nn.Tape, in *Input) *nn.Tensor
	layer(t *nn.Tape, i int, x *nn.Tensor, in *Input, firstOnly bool) *nn.Tensor
	// readRows calls f with each embedding table and the rows read.
	readRows(in *Input, f func(table *nn.Weight, rows []int32))
	// maxLength is the largest number of tokens of a sequence.
	maxLength() int
	// usesTypes tells whether token types are looked at.
	usesTypes() bool
}

var families = map[string]*family{
	"bert":       bertFamily,
	"roberta":    robertaFamily,
	"distilbert": distilbertFamily,
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

// WidthKey is the key of config.json that holds a family's intermediate size.
func WidthKey(modelType string) string { return families[modelType].widthKey }
