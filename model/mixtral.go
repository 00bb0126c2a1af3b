package model

// Mixtral (arXiv 2401.04088): Mistral with a mixture of experts in each layer.
func init() {
	register("mixtral", decoderFamily("Mixtral", func(r *reader) *Arch {
		k := struct {
			decoderKeys
			mixtureKeys
			Window  *int    `json:"sliding_window"`
			Experts int     `json:"num_local_experts"`
			Jitter  float32 `json:"router_jitter_noise"`
		}{
			decoderKeys: decoderKeys{KVHeads: ptr(8), HiddenAct: "silu", MaxPositions: 1 << 17, NormEps: 1e-5, InitializerRange: 0.02},
			mixtureKeys: mixtureKeys{TopK: 2, Normalize: true, BalanceLoss: 0.001},
			Experts:     8,
		}
		r.decode(&k)
		r.knowAllOf(&k)
		a := decoderArch(r, &k.decoderKeys, 2)
		a.setRope(r, 1e6)
		a.setWindows(r, nil, k.Window, func(int) bool { return true })
		a.setMixture(r, &k.mixtureKeys, "num_local_experts", k.Experts)
		m := &a.names.mixture
		m.name, m.gate, m.up, m.down, m.otherRouter = "block_sparse_moe", "w1", "w3", "w2", "mlp.gate.weight"
		a.Mixture.Jitter, a.Mixture.JitterExperts = k.Jitter, true
		if !(k.Jitter >= 0 && k.Jitter < 1) {
			r.fail("router_jitter_noise: expected a number from 0 to below 1, found %g", k.Jitter)
		}
		if !k.Normalize {
			r.fail("norm_topk_prob: expected true, found false")
		}
		return a
	}))
}
