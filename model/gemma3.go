package model

import "mlpfusion/nn"

// Gemma 3 (arXiv 2503.19786), its language model: Gemma 2 with norms of queries and
// keys in place of bounds, and other rotations in the layers with a window, five to one
// without.
func init() {
	f := decoderFamily("Gemma3", gemma3Arch)
	f.architectures = heads("Gemma3TextForSequenceClassification", "Gemma3ForCausalLM")
	register("gemma3_text", f)
}

func gemma3Arch(r *reader) *Arch {
	extra := struct {
		Pattern    int     `json:"sliding_window_pattern"`
		LocalTheta float64 `json:"rope_local_base_freq"`
		Nested     any     `json:"rope_parameters"`
	}{Pattern: 6, LocalTheta: 10000}
	r.decode(&extra)
	k := gemmaKeys{decoderKeys: decoderKeys{MaxPositions: 1 << 17}}
	a := gemmaArch(r, &k, func(i int) bool { return (i+1)%max(1, extra.Pattern) != 0 })
	if k.ScoreCap != nil {
		r.fail("attn_logit_softcapping: expected null, found %g", *k.ScoreCap)
	}
	if r.err != nil {
		return a
	}
	dim := a.Attention[0].Dim
	full := r.rope(fullAttention, dim, a.Positions, 1e6)
	frequencies, _ := (&ropeKeys{Theta: extra.LocalTheta}).frequencies(dim)
	local := nn.NewRope(frequencies, 1, false)
	if extra.Nested != nil {
		local = r.rope(slidingAttention, dim, a.Positions, extra.LocalTheta)
	}
	for i := range a.Attention {
		a.Attention[i].QKNorm, a.Attention[i].Rope = NormHeads, full
		if a.Attention[i].Window > 0 {
			a.Attention[i].Rope = local
		}
	}
	return a
}
