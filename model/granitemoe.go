package model

// Granite 3 with mixtures (granite-3.0-1b-a400m): Llama with a mixture in each layer,
// whose experts lie in stacks, and factors of embeddings, scores, sublayers and logits.
// Its softmax over the chosen experts alone is that of all, normalised.
func init() {
	register("granitemoe", decoderFamily("GraniteMoe", func(r *reader) *Arch {
		k := struct {
			decoderKeys
			mixtureKeys
			Experts       int     `json:"num_local_experts"`
			AttentionBias bool    `json:"attention_bias"`
			Embedding     float32 `json:"embedding_multiplier"`
			Scores        float32 `json:"attention_multiplier"`
			Residual      float32 `json:"residual_multiplier"`
			Logits        float32 `json:"logits_scaling"`
		}{
			decoderKeys: decoderKeys{HiddenAct: "silu", MaxPositions: 2048, NormEps: 1e-6, InitializerRange: 0.02},
			mixtureKeys: mixtureKeys{TopK: 2, Normalize: true, BalanceLoss: 0.001},
			Experts:     8, Embedding: 1, Scores: 1, Residual: 1, Logits: 1,
		}
		r.decode(&k)
		r.knowAllOf(&k)
		a := decoderArch(r, &k.decoderKeys, 2)
		a.setBias(k.AttentionBias)
		a.setRope(r, 10000)
		for _, c := range []struct {
			key string
			v   float32
		}{{"embedding_multiplier", k.Embedding}, {"attention_multiplier", k.Scores}, {"residual_multiplier", k.Residual}, {"logits_scaling", k.Logits}} {
			if !(c.v > 0) {
				r.fail("%s: expected a number above 0, found %g", c.key, c.v)
			}
		}
		a.EmbedScale, a.ResidualScale, a.LogitScale = k.Embedding, k.Residual, 1/k.Logits
		for i := range a.Attention {
			a.Attention[i].Scale = k.Scores
		}
		a.setMixture(r, &k.mixtureKeys, "num_local_experts", k.Experts)
		if !k.Normalize {
			r.fail("norm_topk_prob: expected true, found false")
		}
		a.names.mixture = mixtureNames{
			name: "block_sparse_moe", router: "router.layer", expert: "experts.%d", gate: "gate_proj", up: "up_proj", down: "down_proj",
			gateUpStack: "block_sparse_moe.input_linear.weight", downStack: "block_sparse_moe.output_linear.weight", stacked: true,
		}
		return a
	}).withoutLabels())
}
