package model

// Qwen 1.5 and 2 with mixtures (Qwen1.5-MoE, arXiv 2407.10671): in some or all layers a
// mixture, beside whose experts every token passes through a shared one.
func init() {
	register("qwen2_moe", decoderFamily("Qwen2Moe", func(r *reader) *Arch {
		k := struct {
			qwenKeys
			mixtureKeys
			sparseKeys
			Experts int  `json:"num_experts"`
			Width   int  `json:"moe_intermediate_size"`
			Shared  int  `json:"shared_expert_intermediate_size"`
			Bias    bool `json:"qkv_bias"`
		}{
			qwenKeys:    qwenKeys{decoderKeys: decoderKeys{KVHeads: ptr(16)}},
			mixtureKeys: mixtureKeys{TopK: 4, BalanceLoss: 0.001},
			sparseKeys:  sparseKeys{Step: 1},
			Experts:     60, Width: 1408, Shared: 5632, Bias: true,
		}
		k.defaults()
		r.decode(&k)
		r.knowAllOf(&k)
		a := decoderArch(r, &k.decoderKeys)
		a.setRope(r, 10000)
		if k.UseWindow {
			a.setWindows(r, k.LayerTypes, k.Window, func(i int) bool { return i%2 == 0 && i < k.WindowsFrom })
		}
		for i := range a.Attention {
			a.Attention[i].Bias = k.Bias
		}
		a.setMixture(r, &k.mixtureKeys, "num_experts", k.Experts)
		a.setSparse(r, &k.sparseKeys)
		m := &a.Mixture
		m.setExpertWidth(r, k.Width)
		m.Shared, m.sharedKey, m.SharedGate = r.size("shared_expert_intermediate_size", k.Shared), "shared_expert_intermediate_size", true
		a.names.mixture.shared, a.names.mixture.sharedGate = "shared_expert", "shared_expert_gate"
		return a
	}))
}
