package main

import (
	"testing"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// TestForwardFLOPs compares the counts of small models with sums by hand, after a
// step on sequences of 3 and 2 tokens: 13 pairs, 9 of them causal.
func TestForwardFLOPs(t *testing.T) {
	for name, c := range map[string]struct {
		config  string
		targets []int32
		want    int // multiply-adds
	}{
		"bert": {`{"model_type": "bert", "vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 6}`, nil,
			5*(4*16+2*24) + 2*13*4 + // the first layer: q, k, v, output and MLP of 5 tokens, scores and sums of 13 pairs
				2*(4*16+2*24) + 2*5*2*4 + // the second: 2 queries, that meet 5 tokens in each of 2 heads
				2*(16+8)}, // the head
		"gpt2": {`{"model_type": "gpt2", "vocab_size": 10, "n_embd": 4, "n_layer": 2, "n_head": 2, "n_inner": 6, "n_positions": 8}`, []int32{-1, 1, 2, -1, 3},
			5*(4*16+2*24) + 2*9*4 +
				5*3*16 + 3*(16+2*24) + 2*(2+3+2)*4 + // 3 targets, that see 2, 3 and 2 tokens
				3*4*10}, // the vocabulary
		"t5": {`{"model_type": "t5", "vocab_size": 10, "d_model": 4, "d_kv": 3, "d_ff": 6, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2}`, nil,
			5*(4*24+2*24) + 2*13*6 + // the encoder
				5*(4*24+4*24+2*24) + 2*9*6 + 2*13*6 + // the decoder's first layer, with all keys and values of the encoder's output
				5*4*24 + 2*9*6 + 2*(4*24+2*24) + 2*5*2*4 + // its second: one query a sequence after self-attention
				2*(16+8)},
		"switch": {`{"model_type": "switch_transformers", "vocab_size": 10, "d_model": 4, "d_kv": 3, "d_ff": 6, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2,
			"num_experts": 2, "expert_capacity": 8, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "decoder_start_token_id": 0, "pad_token_id": 0}`, nil,
			2*(5*(4*24+2*24)+2*13*6) + // the encoder, no token beyond an expert's capacity
				2*(2*(4*24+4*24+2*24)+2*2*6+2*5*2*4) + // the decoder: one token a sequence
				2*(16+8)},
	} {
		config, err := model.ParseConfig([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		if c.targets == nil {
			config.Head, config.Labels = model.Classification, []string{"no", "yes"}
		}
		m, err := model.New(config)
		if err != nil {
			t.Fatal(err)
		}
		pool := kernel.NewPool(1)
		b := task.Batch{IDs: []int32{1, 2, 3, 4, 5}, Types: make([]int32, 5), Offsets: []int32{0, 3, 5}, Labels: []float32{0, 1}, Index: []int32{0, 1}, Targets: c.targets}
		train.NewStepper(pool, m, train.PaperOptimizer, kernel.FP32, 1).Step(&b, 0)
		pool.Close()
		if got, want := forwardFLOPs(m, &b), 2*float64(c.want); got != want {
			t.Errorf("%s: %g operations, want %g", name, got, want)
		}
	}
}
