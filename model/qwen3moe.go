package model

// Qwen 3 with mixtures (arXiv 2505.09388), of which some layers may have an MLP.
func init() {
	f := decoderFamily("Qwen3Moe", func(r *reader) *Arch {
		k := struct {
			qwenKeys
			mixtureKeys
			sparseKeys
			Experts int `json:"num_experts"`
			Width   int `json:"moe_intermediate_size"`
		}{
			qwenKeys:    qwenKeys{decoderKeys: decoderKeys{KVHeads: ptr(4)}},
			mixtureKeys: mixtureKeys{TopK: 8, BalanceLoss: 0.001},
			sparseKeys:  sparseKeys{Step: 1},
			Experts:     128, Width: 768,
		}
		k.defaults()
		r.decode(&k)
		r.knowAllOf(&k, "num_local_experts")
		a := decoderArch(r, &k.decoderKeys)
		a.setRope(r, 10000)
		a.setBias(k.AttentionBias)
		if k.UseWindow {
			a.setWindows(r, nil, k.Window, func(int) bool { return true })
		}
		for i := range a.Attention {
			a.Attention[i].QKNorm = NormHeads
		}
		a.setMixture(r, &k.mixtureKeys, "num_experts", k.Experts)
		a.setSparse(r, &k.sparseKeys)
		a.Mixture.setExpertWidth(r, k.Width)
		return a
	})
	f.aliases = map[string]string{"num_local_experts": "num_experts"}
	register("qwen3_moe", f)
}
