package model

// Mixtral (arXiv 2401.04088): Mistral with a mixture of experts in each layer.
func init() {
	register("mixtral", decoderFamily("Mixtral", func(r *reader) *Arch {
		k := struct {
			mixtureKeys
			Window  *int    `json:"sliding_window"`
			Experts int     `json:"num_local_experts"`
			Jitter  float32 `json:"router_jitter_noise"`
		}{Experts: 8}
		k.decoderKeys = decoderKeys{KVHeads: ptr(8), HiddenAct: "silu", MaxPositions: 1 << 17, NormEps: 1e-5, InitializerRange: 0.02}
		k.TopK, k.BalanceLoss = 2, 0.001
		r.decode(&k)
		a := decoderArch(r, &k.decoderKeys, 2)
		a.setRope(r, 1e6)
		a.setWindows(r, nil, k.Window, func(int) bool { return true })
		a.setMixture(r, &k.mixtureKeys, "num_local_experts", k.Experts)
		a.Mixture.Normalize = true
		a.names.mixture = mixtureNames{
			name: "block_sparse_moe", router: "gate", expert: "experts.%d", gate: "w1", up: "w3", down: "w2",
			gateUpStack: "mlp.experts.gate_up_proj", downStack: "mlp.experts.down_proj", otherRouter: "mlp.gate.weight",
		}
		if k.Jitter != 0 {
			r.fail("router_jitter_noise: expected 0, found %g", k.Jitter)
		}
		return a
	}))
}
