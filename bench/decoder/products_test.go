package main

import (
	"testing"

	"mlpfusion/model"
)

// TestFLOPs compares the counts of a small model with sums by hand.
func TestFLOPs(t *testing.T) {
	config, err := model.ParseConfig([]byte(`{"model_type": "llama", "vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 2,
		"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 6, "max_position_embeddings": 8}`))
	if err != nil {
		t.Fatal(err)
	}
	config.Head = model.LanguageModel
	m, err := model.New(config)
	if err != nil {
		t.Fatal(err)
	}
	texts := [][]int32{{1, 2, 3, 4}, {5, 6}}
	layer := 2*4*4 + 2*4*2 + 3*4*6 // queries and output, keys and values, gate, up and down
	// 3 + 1 tokens are read, by 1 + 2 + 3 + 1 pairs, and predict as many.
	if got, want := forwardFLOPs(m, texts), 2*float64(4*(2*layer+4*10)+2*7*2*4); got != want {
		t.Errorf("forward: %g operations, want %g", got, want)
	}
	// 4 + 2 tokens in one layer, with 10 + 3 pairs, and a row of logits for each text.
	if got, want := promptFLOPs(m, texts), 2*float64(6*layer+2*4*10+13*2*4); got != want {
		t.Errorf("prompt: %g operations, want %g", got, want)
	}
}
