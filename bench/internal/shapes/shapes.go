// Package shapes makes the models that are measured.
package shapes

import (
	"fmt"
	"math/rand/v2"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/model"
)

// switchShape is google/switch-base-8's config.json with the given number of layers
// in encoder and in decoder, every second of them sparse; it has 12.
func switchShape(layers int) string {
	return fmt.Sprintf(`{"model_type": "switch_transformers", "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072,
"num_layers": %d, "num_decoder_layers": %[1]d, "num_heads": 12, "num_experts": 8, "expert_capacity": 64,
"num_sparse_encoder_layers": %[2]d, "num_sparse_decoder_layers": %[2]d, "decoder_start_token_id": 0, "pad_token_id": 0}`, layers, layers/2)
}

// random are the shapes of models with random weights, encoder–decoders with BERT's
// ids of padding and of the end of a text; the peers' are in bench/peers/common.py.
var random = map[string]string{
	"bert-base": `{"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}`,
	"switch":    switchShape(4), // the whole leaves no memory for the peer's on a small machine
	"switch-6":  switchShape(6),
	"switch-12": switchShape(12),
	"t5-base": `{"model_type": "t5", "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12,
"feed_forward_proj": "relu", "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 102}`,
}

// New loads MiniLM from its directory, or makes a random model of the shape of
// minilm, bert-base, switch (switch-base-8 with 4 + 4 of its layers), switch-6,
// switch-12 (all of them) or t5-base, a classifier with frozen routers. MLPs have ffn
// units unless that is 0; of a fused model the last two thirds have a quarter, with P.
func New(name, minilm string, ffn int, fused bool) (*model.Model, error) {
	dir, err := checkpoint.OpenDir(minilm)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if name == "minilm" && ffn == 0 && !fused {
		m, _, err := model.Load(dir, model.LoadOptions{NewHead: true})
		return m, err
	}
	cfg, err := model.ReadConfig(dir)
	if shape, ok := random[name]; ok {
		cfg, err = model.ParseConfig([]byte(shape))
	}
	if err != nil {
		return nil, err
	}
	cfg.Head, cfg.Labels = model.Classification, []string{"negative", "positive"}
	if ffn > 0 {
		cfg.Intermediate = ffn
	}
	if fused {
		_, blocks, err := model.Describe(cfg)
		if err != nil {
			return nil, err
		}
		widths, err := convert.Plan{}.Choose(blocks) // the paper's
		if err != nil {
			return nil, err
		}
		cfg.Blocks = map[string]model.BlockConfig{}
		for i, width := range widths {
			cfg.Blocks[blocks[i].Name] = model.BlockConfig{Width: width, ClusterSizes: true}
		}
	}
	m, err := model.New(cfg)
	if err != nil {
		return nil, err
	}
	m.FreezeRouters()
	rng := rand.New(rand.NewPCG(1, 1))
	for _, t := range m.Tensors {
		switch {
		case t.Param == nil: // P
			for i := range t.Fixed {
				t.Fixed[i] = 4
			}
		case t.Init == model.Ones:
			for i := range t.Param.Data {
				t.Param.Data[i] = 1
			}
		case t.Init == model.Normal:
			for i := range t.Param.Data {
				t.Param.Data[i] = 0.02 * float32(rng.NormFloat64())
			}
		}
	}
	return m, nil
}
