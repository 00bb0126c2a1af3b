package convert

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// chooseNemotronWidths is chooseWidth where each layer has a width of its own. What reads
// nemotron-nas computes it from ffn_mult and rounds it up.
func (e *exporter) chooseNemotronWidths(pad bool) error {
	switch c := e.src.Config; {
	case c.Head != model.LanguageModel:
		return e.noNemotron(fmt.Errorf("it has a %s head", c.Head))
	case c.TwoStacks():
		return e.noNemotron(errors.New("it has an encoder and a decoder"))
	case slices.ContainsFunc(e.blocks, (*model.Block).Mixed):
		return e.noNemotron(errors.New("it has mixtures of experts"))
	}
	const multiple = model.NemotronMultiple
	for _, b := range e.blocks {
		units := len(e.units(b))
		width := (units + multiple - 1) / multiple * multiple
		if width != units && !pad {
			return fmt.Errorf("%s: expected widths that are multiples of %d, which is all that %s can say, found %d in %s: give --pad to fill the blocks with dead units up to the next one (exact)",
				e.src.Dir.Path, multiple, model.NemotronNAS, units, b.Name)
		}
		e.widths[b] = width
		e.result.LayerWidths = append(e.result.LayerWidths, width)
		e.result.Padded += width - units
	}
	e.result.Width = slices.Max(e.result.LayerWidths)
	return nil
}

// noNemotron refuses a model that is not Llama but for its widths.
func (e *exporter) noNemotron(why error) error {
	return fmt.Errorf("%s: model_type: expected llama or one of the same shape, which %s is but for its widths, found %s: %w",
		e.src.Dir.Path, model.NemotronNAS, e.src.Config.Type, why)
}

// nemotronBlock is a layer's entry in block_configs.
type nemotronBlock struct {
	Attention nemotronAttention `json:"attention"`
	FFN       nemotronFFN       `json:"ffn"`
}

type nemotronAttention struct {
	HeadsInGroup int `json:"n_heads_in_group"`
	nemotronPart
}

type nemotronFFN struct {
	Mult decimal `json:"ffn_mult"`
	nemotronPart
}

// nemotronPart says that a sublayer is there: its readers ask for both keys.
type nemotronPart struct {
	NoOp   bool `json:"no_op"`
	Linear bool `json:"replace_with_linear"`
}

// decimal is a number with a decimal point, even if it is whole: llama.cpp's converter
// asks for a Python float.
type decimal float64

func (d decimal) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(d), 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return []byte(text), nil
}

// describeNemotron turns a configuration into one of nemotron-nas, and reads it back: all
// but the widths must say what it said before.
func (e *exporter) describeNemotron(cfg *checkpoint.Config) error {
	was := e.src.Config
	blocks := make([]nemotronBlock, len(e.blocks))
	for i, b := range e.blocks {
		a := was.Attention[i]
		blocks[i].Attention.HeadsInGroup = a.Heads / a.KVHeads
		// Readers take ⌊2/3 · ffn_mult · hidden size⌋, and of that the next multiple of 256.
		blocks[i].FFN.Mult = decimal(1.5 * float64(e.widths[b]) / float64(b.Hidden))
	}
	cfg.Delete("intermediate_size")
	for _, kv := range []struct {
		key   string
		value any
	}{{"model_type", model.NemotronNAS}, {"architectures", []string{"DeciLMForCausalLM"}}, {"block_configs", blocks}} {
		if err := cfg.Set(kv.key, kv.value); err != nil {
			return err
		}
	}
	is, err := model.ParseConfig(cfg.Bytes())
	if err != nil {
		return e.noNemotron(err)
	}
	if !slices.Equal(is.Widths, e.result.LayerWidths) {
		return e.noNemotron(fmt.Errorf("widths %v are read as %v", e.result.LayerWidths, is.Widths))
	}
	but := func(a model.Arch) model.Arch {
		a.Intermediate, a.Widths, a.Multiple = 0, nil, 0
		return a
	}
	if !reflect.DeepEqual(but(was.Arch), but(is.Arch)) {
		return e.noNemotron(errors.New("its attention, norms or tensors differ from Llama's"))
	}
	return nil
}
