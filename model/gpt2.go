package model

import "math"

// GPT-2, and DistilGPT-2, which is one with fewer layers.
func init() {
	register("gpt2", &family{
		prefix:        "transformer.",
		architectures: heads("GPT2ForSequenceClassification", "GPT2LMHeadModel"),
		head:          LanguageModel,
		widthKey:      "n_inner",
		unused:        []string{"lm_head.", "score.", "multiple_choice_head.", "qa_outputs."},
		buffers:       []string{".attn.bias", ".attn.masked_bias"}, // causal masks of old checkpoints
		aliases:       map[string]string{"hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
		arch:          gpt2Arch,
	})
}

type gpt2Keys struct {
	NEmbd            int     `json:"n_embd"`
	NLayer           int     `json:"n_layer"`
	NHead            int     `json:"n_head"`
	NInner           *int    `json:"n_inner"`
	NPositions       int     `json:"n_positions"`
	VocabSize        int     `json:"vocab_size"`
	Activation       string  `json:"activation_function"`
	PadTokenID       *int    `json:"pad_token_id"`
	LayerNormEpsilon float32 `json:"layer_norm_epsilon"`
	InitializerRange float32 `json:"initializer_range"`
	ResidDrop        float32 `json:"resid_pdrop"`
	EmbdDrop         float32 `json:"embd_pdrop"`
	AttnDrop         float32 `json:"attn_pdrop"`
	ScaleAttn        bool    `json:"scale_attn_weights"`
	ScaleAttnByLayer bool    `json:"scale_attn_by_inverse_layer_idx"`
	CrossAttention   bool    `json:"add_cross_attention"`
	Tied             bool    `json:"tie_word_embeddings"`
}

// reorder_and_upcast_attn changes nothing where attention is float32 anyway.
func gpt2Arch(r *reader) *Arch {
	k := gpt2Keys{
		NEmbd: 768, NLayer: 12, NHead: 12, NPositions: 1024, VocabSize: 50257, Activation: "gelu_new", LayerNormEpsilon: 1e-5, InitializerRange: 0.02,
		ResidDrop: 0.1, EmbdDrop: 0.1, AttnDrop: 0.1, ScaleAttn: true, Tied: true,
	}
	r.decode(&k)
	if k.NInner == nil {
		four := 4 * k.NEmbd
		k.NInner = &four
	}
	a := &Arch{
		Hidden: r.size("n_embd", k.NEmbd), Layers: r.layers("n_layer", k.NLayer),
		Intermediate: r.size("n_inner", *k.NInner), Act: r.act("activation_function", k.Activation), MLPBias: true,
		Vocab: r.size("vocab_size", k.VocabSize), Positions: r.size("n_positions", k.NPositions),
		PadID: id(k.PadTokenID), EndIDs: r.ids("eos_token_id", 50256), Eps: k.LayerNormEpsilon, InitStd: k.InitializerRange,
		Dropout:    Dropout{EmbedDrop: k.EmbdDrop, HiddenDrop: k.ResidDrop, AttnDrop: k.AttnDrop},
		Tied:       k.Tied,
		classifier: classifier{out: "score", lastToken: true, skipPad: true},
		names: names{
			words: "transformer.wte", positions: "transformer.wpe",
			layer: "transformer.h.%d", block: "mlp", transposed: true, scaledInit: true,
			attnNorms: norms{before: "ln_1"}, qkv: []string{"attn.c_attn"}, out: "attn.c_proj",
			mlpNorms: norms{before: "ln_2"}, up: "mlp.c_fc", down: "mlp.c_proj",
			norm: "transformer.ln_f", head: "lm_head",
		},
	}
	attn := Attention{Heads: k.NHead, Dim: r.headDim("n_embd", a.Hidden, "n_head", k.NHead), Bias: true, OutBias: true, Causal: true, Scale: 1}
	if k.ScaleAttn {
		attn.Scale = float32(1 / math.Sqrt(float64(attn.Dim)))
	}
	a.Attention = layers(a.Layers, attn)
	if k.ScaleAttnByLayer {
		for i := range a.Attention {
			a.Attention[i].Scale /= float32(i + 1)
		}
	}
	if k.CrossAttention {
		r.fail("add_cross_attention: expected false, found true")
	}
	return a
}
