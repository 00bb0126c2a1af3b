package model

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type object = map[string]any

// TestWrongConfig gives each key of a config.json a value that it may not have:
// the error names the key, what was expected and what was found, in no words of Go.
func TestWrongConfig(t *testing.T) {
	for _, c := range []struct {
		key    string
		value  any
		want   string
		family string // "" is bert
	}{
		{"hidden_size", "32", `hidden_size: expected a whole number, found a string`, ""},
		{"hidden_size", 32.5, `hidden_size: expected a whole number, found the number 32.5`, ""},
		{"hidden_size", nil, `hidden_size: expected a number, found nothing`, ""},
		{"hidden_size", -1, `hidden_size: expected between 1 and`, ""},
		{"num_hidden_layers", 1 << 20, `num_hidden_layers: expected between 1 and 4096, found 1048576`, ""},
		{"num_attention_heads", 5, `hidden_size: expected a multiple of num_attention_heads, 5, found 32`, ""},
		{"hidden_act", 3, `hidden_act: expected a string, found a number`, ""},
		{"hidden_act", "swoosh", `found "swoosh"`, ""},
		{"architectures", "BertModel", `architectures: expected a list, found a string`, ""},
		{"id2label", []string{"a", "b"}, `id2label: expected an object, found a list`, ""},
		{"id2label", map[string]int{"0": 1}, `id2label: expected a string, found a number`, ""},
		{"id2label", map[string]string{"0": "a", "2": "b"}, `id2label: expected the keys 0 to 1, found no 1`, ""},
		{"layer_norm_eps", "x", `layer_norm_eps: expected a number, found a string`, ""},
		{"layer_norm_eps", -1, `epsilon of the norms: expected a number of at least 0, found -1`, ""},
		{"is_decoder", "no", `is_decoder: expected true or false, found a string`, ""},
		{"hidden_dropout_prob", 2, `dropout: expected a probability below 1, found 2`, ""},
		{"model_type", 7, `model_type: expected a string, found a number`, ""},
		{"head_dim", 7, `partial_rotary_factor: expected a value that fits rope_type "default" and heads of 7, found 1`, "llama"},
		{"num_key_value_heads", 3, `num_attention_heads: expected a multiple of num_key_value_heads, 3, found 4`, "llama"},
		{"rope_parameters", 3, `rope_parameters: expected an object, found 3`, "llama"},
		{"rope_parameters", object{"rope_type": "spiral"}, `rope_parameters: rope_type: expected one of default, linear, llama3, yarn, found "spiral"`, "llama"},
		{"rope_parameters", object{"rope_type": "linear", "factor": 2, "beta_fast": 3}, `rope_parameters: expected no key "beta_fast" with rope_type "linear"`, "llama"},
		{"rope_parameters", object{"rope_type": "yarn"}, `rope_parameters: factor: expected a value that fits rope_type "yarn"`, "llama"},
		{"rope_parameters", object{"rope_theta": "x"}, `rope_parameters: rope_theta: expected a number, found a string`, "llama"},
		{"rope_scaling", object{"type": "dynamic", "factor": 2}, `rope_scaling: rope_type: expected one of default, linear, llama3, yarn, found "dynamic"`, "llama"},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", cmp.Or(c.family, "bert"), "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		var config object
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		config[c.key] = c.value
		changed, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseConfig(changed); err == nil || !strings.HasPrefix(err.Error(), "config.json: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %v gave %v, want %q", c.key, c.value, err, c.want)
		}
	}
}

// RoBERTa's positions begin behind the padding's id, which must leave some.
func TestWrongFirstPosition(t *testing.T) {
	text, err := os.ReadFile("testdata/roberta/config.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []int{-5, 33, 1000} {
		var config map[string]any
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		config["pad_token_id"] = id
		changed, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("config.json: pad_token_id: expected an id from 0 to 32, for positions begin behind it, found %d", id)
		if _, err := ParseConfig(changed); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
