package model

// Phi 3 (arXiv 2404.14219): Llama with queries, keys and values in one matrix, and gate
// and up in another.
func init() {
	register("phi3", decoderFamily("Phi3", func(r *reader) *Arch {
		k := struct {
			decoderKeys
			Window    *int    `json:"sliding_window"`
			ResidDrop float32 `json:"resid_pdrop"`
		}{decoderKeys: decoderKeys{HiddenAct: "silu", MaxPositions: 4096, PadTokenID: ptr(32000), NormEps: 1e-5, InitializerRange: 0.02}}
		r.decode(&k)
		a := decoderArch(r, &k.decoderKeys, 32000)
		a.HiddenDrop = k.ResidDrop
		a.names.qkv, a.names.gateUp = []string{"self_attn.qkv_proj"}, "mlp.gate_up_proj"
		a.setRope(r, 10000, "default")
		a.setWindows(r, nil, k.Window, func(int) bool { return true })
		return a
	}))
}
