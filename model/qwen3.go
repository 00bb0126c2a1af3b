package model

// Qwen 3 (arXiv 2505.09388): norms of each head of queries and keys, and no biases.
func init() {
	register("qwen3", decoderFamily("Qwen3", func(r *reader) *Arch {
		k := qwenKeys{decoderKeys: decoderKeys{KVHeads: ptr(32), HeadDim: ptr(128)}}
		a := qwenArch(r, &k)
		a.setBias(k.AttentionBias)
		for i := range a.Attention {
			a.Attention[i].QKNorm = NormHeads
		}
		return a
	}))
}
