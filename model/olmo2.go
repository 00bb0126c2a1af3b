package model

// OLMo 2 (arXiv 2501.00656): norms after each sublayer in place of those before it, and
// of all queries and all keys.
func init() {
	register("olmo2", decoderFamily("Olmo2", func(r *reader) *Arch {
		k := struct {
			decoderKeys
			AttentionBias bool `json:"attention_bias"`
		}{decoderKeys: decoderKeys{HiddenAct: "silu", MaxPositions: 2048, PadTokenID: ptr(1), NormEps: 1e-5, InitializerRange: 0.02}}
		r.decode(&k)
		a := decoderArch(r, &k.decoderKeys, 50279)
		a.names.attnNorms = norms{after: "post_attention_layernorm"}
		a.names.mlpNorms = norms{after: "post_feedforward_layernorm"}
		a.setBias(k.AttentionBias)
		a.setRope(r, 10000)
		for i := range a.Attention {
			a.Attention[i].QKNorm = NormAll
		}
		return a
	}))
}
