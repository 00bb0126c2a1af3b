package train

import (
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// TestTextFormatEnds checks what is said of a configuration whose texts have no end.
func TestTextFormatEnds(t *testing.T) {
	for keys, want := range map[string]string{
		``:                       "eos_token_id: expected the id of the token that ends a text, found none",
		`, "eos_token_id": null`: "eos_token_id: expected the id of the token that ends a text, found none",
		`, "eos_token_id": 16`:   "eos_token_id: expected an id below the vocabulary's 16, found 16",
		`, "eos_token_id": 15`:   "",
	} {
		c, err := checkpoint.ParseConfig("config.json", []byte(`{"model_type": "qwen3", "vocab_size": 16, "hidden_size": 8,
			"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 16,
			"max_position_embeddings": 64, "rms_norm_eps": 1e-6`+keys+`}`))
		if err != nil {
			t.Fatal(err)
		}
		m, err := model.FromScratch(c, model.LoadOptions{Head: model.LanguageModel})
		if err != nil {
			t.Fatal(keys, err)
		}
		_, err = TextFormat(m.Config, 16)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: expected %q, found %v", keys, want, err)
		}
	}
}
