package model

// Mistral (arXiv 2310.06825): Llama whose layers may see a window only.
func init() { register("mistral", decoderFamily("Mistral", mistralArch)) }

func mistralArch(r *reader) *Arch {
	k := struct {
		decoderKeys
		Window *int `json:"sliding_window"`
	}{decoderKeys{KVHeads: ptr(8), HiddenAct: "silu", MaxPositions: 1 << 17, NormEps: 1e-6, InitializerRange: 0.02}, ptr(4096)}
	r.decode(&k)
	a := decoderArch(r, &k.decoderKeys, 2)
	a.setRope(r, 10000)
	a.setWindows(r, nil, k.Window, func(int) bool { return true })
	return a
}
