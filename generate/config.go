package generate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"mlpfusion/internal/choice"
	"mlpfusion/internal/disk"
)

// Config is a model's generation_config.json: what transformers' generate does with it
// unless told otherwise. Nil fields are not given.
type Config struct {
	EndIDs            []int32  `json:"-"` // eos_token_id, one or several
	MaxNewTokens      *int     `json:"max_new_tokens"`
	MinNewTokens      *int     `json:"min_new_tokens"`
	Beams             *int     `json:"num_beams"`
	NoRepeatNGram     *int     `json:"no_repeat_ngram_size"`
	LengthPenalty     *float64 `json:"length_penalty"`
	RepetitionPenalty *float64 `json:"repetition_penalty"`
	EarlyStopping     any      `json:"early_stopping"` // true, false or "never"
	Sample            bool     `json:"do_sample"`
	Temperature       *float64 `json:"temperature"`
	TopK              *int     `json:"top_k"`
	TopP              *float64 `json:"top_p"`

	// Ignored are the keys that would change the text and are not followed.
	Ignored []string `json:"-"`
}

// configKeys are those that are followed, or that do not change a text.
var configKeys = []string{
	"eos_token_id", "max_new_tokens", "min_new_tokens", "num_beams", "no_repeat_ngram_size", "length_penalty", "repetition_penalty", "early_stopping",
	"do_sample", "temperature", "top_k", "top_p",
	"_from_model_config", "transformers_version", "bos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache", "cache_implementation",
	"return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores", "output_logits", "num_return_sequences",
}

// ReadConfig reads the generation_config.json of a model's folder; nil if it has none,
// as a GGUF file, which is no folder, has not.
func ReadConfig(dir string) (*Config, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, nil
	}
	path := filepath.Join(dir, "generation_config.json")
	text, err := disk.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var fields map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	c := &Config{}
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if end := fields["eos_token_id"]; err == nil && len(end) > 0 && string(end) != "null" {
		var one int32
		if json.Unmarshal(end, &one) == nil {
			c.EndIDs = []int32{one}
		} else if json.Unmarshal(end, &c.EndIDs) != nil {
			err = fmt.Errorf("eos_token_id: expected an id or a list of ids, found %s", end)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, choice.JSONType(err))
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(configKeys, key) && !slices.Contains([]string{"null", "false", "[]", "{}"}, string(fields[key])) {
			c.Ignored = append(c.Ignored, key)
		}
	}
	return c, nil
}

// Apply sets the options that the file gives and that are not given otherwise, by the
// names of the command's flags.
func (c *Config) Apply(o *Options, given func(flag string) bool) error {
	apply(&o.MaxNewTokens, c.MaxNewTokens, given("max-new-tokens"))
	apply(&o.MinNewTokens, c.MinNewTokens, given("min-new-tokens"))
	if !given("min-new-tokens") {
		o.MinNewTokens = min(o.MinNewTokens, o.MaxNewTokens)
	}
	apply(&o.NoRepeatNGram, c.NoRepeatNGram, given("no-repeat-ngram"))
	apply(&o.RepetitionPenalty, c.RepetitionPenalty, given("repetition-penalty"))
	sample := c.Sample && !given("greedy") && !given("beam")
	if sample {
		o.Sample = true
		topK := 50 // transformers' default
		if o.Temperature == 0 {
			o.Temperature = 1
		}
		apply(&o.Temperature, c.Temperature, given("temperature"))
		apply(&topK, c.TopK, false)
		apply(&o.TopK, &topK, given("top-k"))
		apply(&o.TopP, c.TopP, given("top-p"))
	}
	if !given("greedy") && !o.Sample {
		apply(&o.Beams, c.Beams, given("beam"))
		apply(&o.LengthPenalty, c.LengthPenalty, given("length-penalty"))
		if !given("early-stopping") {
			switch c.EarlyStopping {
			case nil, false:
			case true:
				o.EarlyStopping = StopFull
			case "never":
				o.EarlyStopping = StopNever
			default:
				return fmt.Errorf("generation_config.json: early_stopping: expected true, false or \"never\", found %v", c.EarlyStopping)
			}
		}
	} else if c.Beams != nil && *c.Beams > 1 && sample {
		return fmt.Errorf("generation_config.json: expected beam search or sampling, found both (num_beams %d, do_sample): give --beam or --greedy", *c.Beams)
	}
	if err := o.Check(); err != nil {
		return fmt.Errorf("with generation_config.json: %w", err)
	}
	return nil
}

// apply sets an option to what the file says, unless it is given.
func apply[T any](to *T, v *T, given bool) {
	if v != nil && !given {
		*to = *v
	}
}
