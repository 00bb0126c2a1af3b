package model

// decoderKeys are the keys of config.json that the decoders of today share: Llama and
// those that came after it.
type decoderKeys struct {
	HiddenSize       int     `json:"hidden_size"`
	IntermediateSize int     `json:"intermediate_size"`
	Layers           int     `json:"num_hidden_layers"`
	Heads            int     `json:"num_attention_heads"`
	KVHeads          *int    `json:"num_key_value_heads"`
	HeadDim          *int    `json:"head_dim"`
	HiddenAct        string  `json:"hidden_act"`
	VocabSize        int     `json:"vocab_size"`
	MaxPositions     int     `json:"max_position_embeddings"`
	PadTokenID       *int    `json:"pad_token_id"`
	NormEps          float32 `json:"rms_norm_eps"`
	InitializerRange float32 `json:"initializer_range"`
	AttentionDropout float32 `json:"attention_dropout"`
	Tied             bool    `json:"tie_word_embeddings"`
}

// decoderFamily is a family of such decoders; class is what the names of its classes
// in transformers begin with.
func decoderFamily(class string, arch func(r *reader) *Arch) *family {
	return &family{
		prefix:        "model.",
		architectures: heads(class+"ForSequenceClassification", class+"ForCausalLM"),
		head:          LanguageModel,
		widthKey:      "intermediate_size",
		unused:        []string{"lm_head.", "score.", "qa_outputs."},
		buffers:       []string{"rotary_emb.inv_freq"},
		arch:          arch,
	}
}

// withoutLabels takes away the head that transformers has no class for.
func (f *family) withoutLabels() *family {
	delete(f.architectures, Classification)
	delete(f.architectures, Regression)
	return f
}

// decoderArch makes Llama's description of the keys, which have been read: RMS norms
// before attention and a gated MLP, no biases. end are the ids that end a text where
// config.json names none.
func decoderArch(r *reader, k *decoderKeys, end ...int) *Arch {
	a := &Arch{
		Hidden: r.size("hidden_size", k.HiddenSize), Layers: r.layers("num_hidden_layers", k.Layers),
		Intermediate: r.size("intermediate_size", k.IntermediateSize), Multiple: 64, Act: r.act("hidden_act", k.HiddenAct), Gated: true,
		Vocab: r.size("vocab_size", k.VocabSize), Positions: r.size("max_position_embeddings", k.MaxPositions),
		PadID: id(k.PadTokenID), EndIDs: r.ids("eos_token_id", end...), Norm: RMSNorm, Eps: k.NormEps, InitStd: k.InitializerRange,
		Dropout:    Dropout{AttnDrop: k.AttentionDropout},
		Tied:       k.Tied,
		classifier: classifier{out: "score", lastToken: true, skipPad: true},
		names: names{
			words: "model.embed_tokens",
			layer: "model.layers.%d", block: "mlp",
			attnNorms: norms{before: "input_layernorm"}, qkv: []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, out: "self_attn.o_proj",
			qNorm: "self_attn.q_norm", kNorm: "self_attn.k_norm",
			mlpNorms: norms{before: "post_attention_layernorm"}, gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj",
			norm: "model.norm", head: "lm_head",
		},
	}
	attn := Attention{Heads: r.size("num_attention_heads", k.Heads), Causal: true}
	attn.KVHeads = attn.Heads
	if k.KVHeads != nil {
		attn.KVHeads = r.size("num_key_value_heads", *k.KVHeads)
	}
	if attn.KVHeads > 0 && attn.Heads%attn.KVHeads != 0 {
		r.fail("num_attention_heads: expected a multiple of num_key_value_heads, %d, found %d", attn.KVHeads, attn.Heads)
	}
	if k.HeadDim != nil {
		attn.Dim = r.size("head_dim", *k.HeadDim)
	} else {
		attn.Dim = r.headDim("hidden_size", a.Hidden, "num_attention_heads", k.Heads)
	}
	a.Attention = layers(a.Layers, attn)
	return a
}

// setWindows gives layers a window, those that layer_types names or, where it is not
// there, those for which sliding holds.
func (a *Arch) setWindows(r *reader, types []string, window *int, sliding func(layer int) bool) {
	if types != nil && len(types) != a.Layers {
		r.fail("layer_types: expected a kind for each of %d layers, found %d", a.Layers, len(types))
		return
	}
	for i := range a.Attention {
		windowed := sliding(i)
		if types != nil {
			windowed = types[i] == slidingAttention
			if !windowed && types[i] != fullAttention {
				r.fail("layer_types: expected %s or %s, found %q", fullAttention, slidingAttention, types[i])
			}
		}
		if windowed && window != nil {
			a.Attention[i].Window = r.size("sliding_window", *window)
		}
	}
}

const fullAttention, slidingAttention = "full_attention", "sliding_attention"

// setBias gives all projections of attention biases or none.
func (a *Arch) setBias(bias bool) {
	for i := range a.Attention {
		a.Attention[i].Bias, a.Attention[i].OutBias = bias, bias
	}
}

// setRope gives all layers one rotation, of one of the kinds or, if there are none, of
// any.
func (a *Arch) setRope(r *reader, theta float64, kinds ...string) {
	if len(a.Attention) == 0 {
		return
	}
	rope := r.rope("", a.Attention[0].Dim, a.Positions, theta, kinds...)
	for i := range a.Attention {
		a.Attention[i].Rope = rope
	}
}
