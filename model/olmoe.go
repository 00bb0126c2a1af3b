package model

// OLMoE (arXiv 2409.02060): Llama with a mixture in each layer, norms of all queries and
// of all keys, and bounds on queries, keys and values.
func init() {
	f := decoderFamily("Olmoe", func(r *reader) *Arch {
		k := struct {
			decoderKeys
			mixtureKeys
			Experts       int      `json:"num_experts"`
			AttentionBias bool     `json:"attention_bias"`
			Clip          *float32 `json:"clip_qkv"`
		}{
			decoderKeys: decoderKeys{HiddenAct: "silu", MaxPositions: 4096, PadTokenID: ptr(1), NormEps: 1e-5, InitializerRange: 0.02},
			mixtureKeys: mixtureKeys{TopK: 8, BalanceLoss: 0.01},
			Experts:     64,
		}
		r.decode(&k)
		r.knowAllOf(&k, "num_local_experts")
		a := decoderArch(r, &k.decoderKeys, 50279)
		a.setBias(k.AttentionBias)
		a.setRope(r, 10000)
		for i := range a.Attention {
			a.Attention[i].QKNorm, a.Attention[i].Clip = NormAll, orZero(k.Clip)
		}
		if k.Clip != nil && !(*k.Clip > 0) {
			r.fail("clip_qkv: expected a number above 0, found %g", *k.Clip)
		}
		a.setMixture(r, &k.mixtureKeys, "num_experts", k.Experts)
		return a
	})
	f.aliases = map[string]string{"num_local_experts": "num_experts"}
	register("olmoe", f.withoutLabels())
}
