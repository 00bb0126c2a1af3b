package model

import "math"

// Gemma 2 (arXiv 2408.00118): norms before and after each sublayer, whose gain is 1 +
// weight, every other layer with a window, bounded scores and logits.
func init() {
	register("gemma2", decoderFamily("Gemma2", func(r *reader) *Arch {
		k := gemmaKeys{ScoreCap: ptr(float32(50)), LogitCap: ptr(float32(30))}
		k.MaxPositions = 8192
		a := gemmaArch(r, &k, func(i int) bool { return i%2 == 0 })
		a.setRope(r, 10000)
		for i := range a.Attention {
			a.Attention[i].Softcap = orZero(k.ScoreCap)
		}
		return a
	}))
}

type gemmaKeys struct {
	decoderKeys
	Activation    string   `json:"hidden_activation"`
	AttentionBias bool     `json:"attention_bias"`
	QueryScalar   float64  `json:"query_pre_attn_scalar"`
	Window        *int     `json:"sliding_window"`
	LayerTypes    []string `json:"layer_types"`
	ScoreCap      *float32 `json:"attn_logit_softcapping"`
	LogitCap      *float32 `json:"final_logit_softcapping"`
	Bidirectional bool     `json:"use_bidirectional_attention"`
}

// gemmaArch reads what Gemma 2 and 3 name alike; sliding tells which layers have a
// window where config.json does not.
func gemmaArch(r *reader, k *gemmaKeys, sliding func(layer int) bool) *Arch {
	k.KVHeads, k.HeadDim, k.PadTokenID, k.NormEps, k.InitializerRange, k.Tied = ptr(4), ptr(256), ptr(0), 1e-6, 0.02, true
	k.Activation, k.QueryScalar, k.Window = "gelu_pytorch_tanh", 256, ptr(4096)
	r.decode(k)
	k.HiddenAct = k.Activation // Gemma's hidden_act is not read
	a := decoderArch(r, &k.decoderKeys, 1)
	a.Norm, a.EmbedScale = RMSNormOnePlus, float32(math.Sqrt(float64(a.Hidden)))
	a.names.attnNorms = norms{before: "input_layernorm", after: "post_attention_layernorm"}
	a.names.mlpNorms = norms{before: "pre_feedforward_layernorm", after: "post_feedforward_layernorm"}
	a.LogitCap = orZero(k.LogitCap)
	a.setBias(k.AttentionBias)
	a.setWindows(r, k.LayerTypes, k.Window, sliding)
	for i := range a.Attention {
		a.Attention[i].Scale = float32(1 / math.Sqrt(k.QueryScalar))
	}
	if !(k.QueryScalar > 0) {
		r.fail("query_pre_attn_scalar: expected a number above 0, found %g", k.QueryScalar)
	}
	if k.Bidirectional {
		r.fail("use_bidirectional_attention: expected false, found true")
	}
	return a
}
