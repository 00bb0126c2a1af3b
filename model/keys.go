package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mlpfusion/internal/choice"
	"mlpfusion/kernel"
)

// reader reads the keys of a config.json into a family's struct of them and keeps
// the first thing wrong.
type reader struct {
	text   []byte
	fields map[string]json.RawMessage
	notes  []string // what was made of unclear keys
	err    error
}

func newReader(text []byte) *reader {
	r := &reader{text: text}
	if err := json.Unmarshal(text, &r.fields); err != nil {
		r.err = fmt.Errorf("config.json: %w", choice.JSONType(err))
	}
	return r
}

// rename gives keys the names that the family reads them under: the same value has
// another name in some families, and transformers takes either.
func (r *reader) rename(aliases map[string]string) *reader {
	changed := false
	for from, to := range aliases {
		if v, ok := r.fields[from]; ok {
			r.fields[to], changed = v, true
		}
	}
	if changed {
		r.text, _ = json.Marshal(r.fields)
	}
	return r
}

// decode fills in a struct of keys, whose values of before are those of keys that
// are missing or null.
func (r *reader) decode(keys any) {
	if r.err != nil {
		return
	}
	if err := json.Unmarshal(r.text, keys); err != nil {
		r.err = fmt.Errorf("config.json: %w", choice.JSONType(err))
	}
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("config.json: "+format, args...)
	}
}

func (r *reader) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf("config.json: "+format, args...))
}

// The largest sizes: far beyond what there is, and soon walked through.
const (
	mostUnits   = 1 << 24
	mostLayers  = 1 << 12
	mostExperts = 1 << 16
)

// size returns a key's value, a size; 0, with an error, if that cannot be.
func (r *reader) size(key string, v int) int { return r.within(key, v, 1, mostUnits) }

// layers is size for a number of layers.
func (r *reader) layers(key string, v int) int { return r.within(key, v, 1, mostLayers) }

func (r *reader) within(key string, v, least, most int) int {
	_, given := r.fields[key]
	switch {
	case v >= least && v <= most:
		return v
	case v == 0 && (!given || string(r.fields[key]) == "null"):
		r.fail("%s: expected a number, found nothing", key)
	default:
		r.fail("%s: expected between %d and %d, found %d", key, least, most, v)
	}
	return 0
}

// headDim returns the width of each of a layer's heads, which share the hidden size.
func (r *reader) headDim(hiddenKey string, hidden int, headsKey string, heads int) int {
	if r.size(headsKey, heads) == 0 {
		return 0
	}
	if hidden%heads != 0 {
		r.fail("%s: expected a multiple of %s, %d, found %d", hiddenKey, headsKey, heads, hidden)
	}
	return hidden / heads
}

// ptr returns a default of a key that may be null.
func ptr[T any](v T) *T { return &v }

// orZero returns a key's number, 0 for null.
func orZero(v *float32) float32 {
	if v == nil {
		return 0
	}
	return *v
}

// id returns a token's id; −1 if there is none.
func id(v *int) int {
	if v == nil {
		return -1
	}
	return *v
}

// ids returns the tokens' ids of a key that has one or a list of them.
func (r *reader) ids(key string, otherwise ...int) []int {
	v := r.fields[key]
	var one int
	var several []int
	switch {
	case len(v) == 0 || string(v) == "null":
		return otherwise
	case json.Unmarshal(v, &one) == nil:
		return []int{one}
	case json.Unmarshal(v, &several) == nil && len(several) > 0:
		return several
	}
	r.fail("%s: expected an id or a list of ids, found %s", key, v)
	return otherwise
}

// activations are the names config.json uses.
var activations = map[string]kernel.Activation{
	"gelu": kernel.GELU, "gelu_python": kernel.GELU,
	"gelu_new": kernel.GELUTanh, "gelu_fast": kernel.GELUTanh, "gelu_accurate": kernel.GELUTanh,
	"gelu_pytorch_tanh": kernel.GELUTanh, "gelu_python_tanh": kernel.GELUTanh,
	"relu": kernel.ReLU, "silu": kernel.SiLU, "swish": kernel.SiLU, "tanh": kernel.Tanh,
}

func (r *reader) act(key, name string) kernel.Activation {
	a, ok := activations[name]
	if !ok {
		r.fail("%s: expected one of %s, found %q", key, strings.Join(slices.Sorted(maps.Keys(activations)), ", "), name)
	}
	return a
}
