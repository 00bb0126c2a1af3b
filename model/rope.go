package model

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"

	"mlpfusion/internal/choice"
	"mlpfusion/nn"
)

// ropeKeys are the keys of rotary positions, under rope_parameters or, as older
// configurations have them, partly beside rope_scaling. A kind takes the keys that
// ropeKinds lists for it.
type ropeKeys struct {
	Type          string   `json:"rope_type"`
	OldType       string   `json:"type"`
	Theta         float64  `json:"rope_theta"`
	Partial       float64  `json:"partial_rotary_factor"`
	Factor        float64  `json:"factor"`
	Original      int      `json:"original_max_position_embeddings"`
	LowFrequency  float64  `json:"low_freq_factor"`
	HighFrequency float64  `json:"high_freq_factor"`
	BetaFast      float64  `json:"beta_fast"`
	BetaSlow      float64  `json:"beta_slow"`
	Mscale        float64  `json:"mscale"`
	MscaleAllDim  float64  `json:"mscale_all_dim"`
	Attention     *float64 `json:"attention_factor"`
	Truncate      *bool    `json:"truncate"`
}

var ropeKinds = map[string][]string{
	"default": {},
	"linear":  {"factor"},
	"llama3":  {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
	"yarn":    {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"},
}

// rope returns the rotation that config.json asks for, of heads of width dim, in a
// model of this many positions. kind is that of the layer where rope_parameters differ
// by kinds of layers, else "". kinds are the rope_types that the family knows, none for
// all. The frequencies are rounded to float32 where transformers rounds them.
func (r *reader) rope(kind string, dim, positions int, theta float64, kinds ...string) *nn.Rope {
	if r.err != nil {
		return nil
	}
	var top struct {
		Theta      *float64        `json:"rope_theta"`
		Partial    *float64        `json:"partial_rotary_factor"`
		Original   *int            `json:"original_max_position_embeddings"`
		Parameters json.RawMessage `json:"rope_parameters"`
		Scaling    json.RawMessage `json:"rope_scaling"`
	}
	r.decode(&top)
	k := ropeKeys{Theta: theta, Partial: 1}
	if top.Theta != nil && kind != slidingAttention {
		k.Theta = *top.Theta
	}
	if top.Partial != nil {
		k.Partial = *top.Partial
	}
	key, text := "rope_parameters", top.Parameters
	if given(top.Scaling) {
		key, text = "rope_scaling", top.Scaling
	}
	var fields map[string]json.RawMessage
	read := func(text json.RawMessage) {
		fields = nil
		if !given(text) || r.err != nil {
			return
		}
		if err := json.Unmarshal(text, &fields); err != nil {
			r.fail("%s: expected an object, found %s", key, text)
		}
	}
	read(text)
	if kind != "" && key == "rope_parameters" {
		for name := range fields {
			if name != fullAttention && name != slidingAttention {
				r.fail("%s: expected the keys %s and %s, found %q", key, fullAttention, slidingAttention, name)
			}
		}
		key, text = key+": "+kind, fields[kind]
		read(text)
	}
	if given(text) && r.err == nil {
		if err := json.Unmarshal(text, &k); err != nil {
			r.fail("%s: %w", key, choice.JSONType(err))
		}
	}
	k.Type = strings.ToLower(cmp.Or(k.Type, k.OldType, "default"))
	if kinds == nil {
		kinds = slices.Sorted(maps.Keys(ropeKinds))
	}
	ok := slices.Contains(kinds, k.Type)
	if !ok {
		r.fail("%s: rope_type: expected one of %s, found %q", key, strings.Join(kinds, ", "), k.Type)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if ok && !slices.Contains([]string{"rope_type", "type", "rope_theta", "partial_rotary_factor"}, name) && !slices.Contains(ropeKinds[k.Type], name) {
			r.fail("%s: expected no key %q with rope_type %q", key, name, k.Type)
		}
	}
	if top.Original != nil {
		k.Original = *top.Original
	} else if k.Original == 0 {
		k.Original = positions
	}
	for _, c := range []struct {
		name string
		v    float64
		bad  bool
	}{
		{"rope_theta", k.Theta, !(k.Theta > 1 && k.Theta < 1e12)},
		{"partial_rotary_factor", k.Partial, !(k.Partial > 0 && k.Partial <= 1) || int(float64(dim)*k.Partial)%2 != 0},
		{"factor", k.Factor, k.Type != "default" && !(k.Factor >= 1 && k.Factor < 1e6)},
		{"original_max_position_embeddings", float64(k.Original), k.Original < 1 || k.Original > mostUnits},
		{"low_freq_factor", k.LowFrequency, k.Type == "llama3" && !(k.LowFrequency > 0)},
		{"high_freq_factor", k.HighFrequency, k.Type == "llama3" && !(k.HighFrequency > k.LowFrequency)},
	} {
		if c.bad {
			r.fail("%s: %s: expected a value that fits rope_type %q and heads of %d, found %g", key, c.name, k.Type, dim, c.v)
		}
	}
	if r.err != nil {
		return nil
	}
	frequencies, factor := k.frequencies(int(float64(dim) * k.Partial))
	return nn.NewRope(frequencies, factor, false)
}

// given tells whether a key of config.json is there and not null.
func given(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }

// frequencies returns that of each pair of dim elements, and by what the rotation
// multiplies.
func (k *ropeKeys) frequencies(dim int) ([]float32, float32) {
	f := make([]float32, dim/2)
	for i := range f {
		f[i] = 1 / float32(math.Pow(k.Theta, float64(float32(2*i)/float32(dim))))
	}
	switch factor := float32(k.Factor); k.Type {
	case "linear":
		for i := range f {
			f[i] /= factor
		}
	case "llama3": // long waves stretched, short ones not, those between in part
		low, high := float32(k.LowFrequency), float32(k.HighFrequency)
		for i, v := range f {
			turns := float32(k.Original) / (2 * math.Pi / v)
			switch {
			case turns < low:
				f[i] = v / factor
			case turns <= high:
				smooth := (turns - low) / (high - low)
				f[i] = (1-smooth)*v/factor + smooth*v
			}
		}
	case "yarn": // arXiv 2309.00071
		return f, k.yarn(f, dim)
	}
	return f, 1
}

// yarn stretches frequencies by the paper's ramp and returns the attention factor.
func (k *ropeKeys) yarn(f []float32, dim int) float32 {
	pair := func(turns float64) float64 { // that turns so often within the original length
		return float64(dim) * math.Log(float64(k.Original)/(turns*2*math.Pi)) / (2 * math.Log(k.Theta))
	}
	fast, slow := k.BetaFast, k.BetaSlow
	if fast == 0 {
		fast = 32
	}
	if slow == 0 {
		slow = 1
	}
	low, high := pair(fast), pair(slow)
	if k.Truncate == nil || *k.Truncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, float64(dim-1))
	if low == high {
		high += 0.001
	}
	for i, v := range f {
		stretched := min(max((float32(i)-float32(low))/float32(high-low), 0), 1)
		f[i] = v/float32(k.Factor)*stretched + v*(1-stretched)
	}
	scale := func(m float64) float64 {
		if k.Factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(k.Factor) + 1
	}
	switch {
	case k.Attention != nil:
		return float32(*k.Attention)
	case k.Mscale != 0 && k.MscaleAllDim != 0:
		return float32(scale(k.Mscale) / scale(k.MscaleAllDim))
	}
	return float32(scale(1))
}
