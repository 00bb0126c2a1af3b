package generate_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mlpfusion/generate"
)

// TestConfig: a generation_config.json is followed where no flag says otherwise.
func TestConfig(t *testing.T) {
	unless := generate.Options{MaxNewTokens: 64, Beams: 1, LengthPenalty: 1, RepetitionPenalty: 1}
	for _, c := range []struct {
		name, text string
		given      []string
		want       func(o *generate.Options)
		end        []int32
		ignored    []string
		err        string
	}{
		{name: "nothing", text: `{"transformers_version": "5.24.0", "eos_token_id": 7, "top_k": 5, "typical_p": null}`, end: []int32{7}},
		{name: "beams", text: `{"eos_token_id": [0, 79], "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "num_beams": 3, "min_new_tokens": 5, "max_new_tokens": 9, "early_stopping": true, "length_penalty": 2}`,
			want: func(o *generate.Options) {
				o.RepetitionPenalty, o.NoRepeatNGram, o.Beams, o.MinNewTokens, o.MaxNewTokens, o.EarlyStopping, o.LengthPenalty = 1.3, 2, 3, 5, 9, generate.StopFull, 2
			}, end: []int32{0, 79}},
		{name: "flags count", text: `{"num_beams": 3, "min_new_tokens": 5, "max_new_tokens": 70, "repetition_penalty": 2}`, given: []string{"beam", "max-new-tokens", "repetition-penalty"},
			want: func(o *generate.Options) { o.MinNewTokens = 5 }},
		{name: "sampling", text: `{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "num_beams": 1}`,
			want: func(o *generate.Options) { o.Sample, o.Temperature, o.TopP, o.TopK = true, 0.6, 0.9, 50 }},
		{name: "greedy", text: `{"do_sample": true, "temperature": 0.6, "num_beams": 4}`, given: []string{"greedy"}},
		{name: "ignored", text: `{"typical_p": 0.5, "suppress_tokens": [3], "bad_words_ids": []}`, ignored: []string{"suppress_tokens", "typical_p"}},
		{name: "both", text: `{"do_sample": true, "num_beams": 4}`, err: "expected beam search or sampling, found both"},
		{name: "a wrong type", text: `{"num_beams": "4"}`, err: "num_beams: expected a whole number, found a string"},
		{name: "a wrong end", text: `{"eos_token_id": "x"}`, err: `eos_token_id: expected an id or a list of ids, found "x"`},
		{name: "a wrong number", text: `{"repetition_penalty": -1}`, err: "repetition-penalty: expected a number above 0, found -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, want := unless, unless
			cfg, err := generate.ReadConfig(dir)
			if err == nil {
				err = cfg.Apply(&got, func(flag string) bool { return slices.Contains(c.given, flag) })
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("found error %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.want != nil {
				c.want(&want)
			}
			if !reflect.DeepEqual(got, want) || !slices.Equal(cfg.EndIDs, c.end) || !slices.Equal(cfg.Ignored, c.ignored) {
				t.Errorf("found %+v, ends %v, ignored %v; want %+v, %v, %v", got, cfg.EndIDs, cfg.Ignored, want, c.end, c.ignored)
			}
		})
	}
	if cfg, err := generate.ReadConfig(t.TempDir()); cfg != nil || err != nil {
		t.Errorf("without a file: %v, %v", cfg, err)
	}
}

// TestConfigOfFile: a model that is one file has no such thing.
func TestConfigOfFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if c, err := generate.ReadConfig(path); c != nil || err != nil {
		t.Errorf("gave %v, %v", c, err)
	}
}
