package model

// Llama (arXiv 2302.13971, 2407.21783) and what has its layout, such as SmolLM2.
func init() { register("llama", decoderFamily("Llama", llamaArch)) }

func llamaArch(r *reader) *Arch {
	k := struct {
		decoderKeys
		AttentionBias bool `json:"attention_bias"`
		MLPBias       bool `json:"mlp_bias"`
	}{decoderKeys: decoderKeys{HiddenAct: "silu", MaxPositions: 2048, NormEps: 1e-6, InitializerRange: 0.02}}
	r.decode(&k)
	a := decoderArch(r, &k.decoderKeys, 2)
	a.setRope(r, 10000)
	a.MLPBias = k.MLPBias
	a.setBias(k.AttentionBias)
	return a
}
