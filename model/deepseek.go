package model

import (
	"math"

	"mlpfusion/nn"
)

// DeepSeek-V2 (arXiv 2405.04434), V2-Lite and V3 (arXiv 2412.19437): latent attention,
// MLPs in the first layers and then mixtures with a shared expert.
func init() {
	register("deepseek_v2", decoderFamily("DeepseekV2", func(r *reader) *Arch {
		k := deepseekKeys{
			decoderKeys: decoderKeys{MaxPositions: 2048, VocabSize: 102400},
			Experts:     64, Shared: 2, Width: 1407, RoutedScale: 1, Method: "greedy", Scoring: "softmax",
		}
		a := deepseekArch(r, &k, 2)
		router := &a.Mixture.Router
		switch {
		case k.Method == "group_limited_greedy":
			k.groups(r, router)
			router.GroupBest = 1
		case k.Method != "greedy":
			r.fail("topk_method: expected greedy or group_limited_greedy, found %q", k.Method)
		}
		if k.Normalize || k.Scoring != "softmax" { // which transformers does not look at
			r.fail("expected norm_topk_prob false and scoring_func softmax, found %t and %s", k.Normalize, k.Scoring)
		}
		return a
	}))
	register("deepseek_v3", decoderFamily("DeepseekV3", func(r *reader) *Arch {
		k := deepseekKeys{
			decoderKeys: decoderKeys{MaxPositions: 4096, VocabSize: 129280},
			Experts:     256, Shared: 1, Width: 2048, RoutedScale: 2.5, Method: "noaux_tc", Scoring: "sigmoid",
			TopK: 8, Normalize: true, Groups: ptr(8), TopGroups: ptr(4), DenseLayers: 3,
		}
		a := deepseekArch(r, &k, 1)
		router := &a.Mixture.Router
		router.Sigmoid, router.Normalize = true, k.Normalize
		k.groups(r, router)
		router.GroupBest = 2
		a.names.mixture.correction = "gate.e_score_correction_bias"
		if k.Method != "noaux_tc" || k.Scoring != "sigmoid" {
			r.fail("expected topk_method noaux_tc and scoring_func sigmoid, found %s and %s", k.Method, k.Scoring)
		}
		return a
	}))
}

type deepseekKeys struct {
	decoderKeys
	AttentionBias bool `json:"attention_bias"`
	MLPBias       bool `json:"mlp_bias"`
	QueryRank     *int `json:"q_lora_rank"`
	Rank          int  `json:"kv_lora_rank"`
	Plain         int  `json:"qk_nope_head_dim"`
	Turned        int  `json:"qk_rope_head_dim"`
	Value         int  `json:"v_head_dim"`
	Interleaved   bool `json:"rope_interleave"`

	TopK         int     `json:"num_experts_per_tok"`
	Experts      int     `json:"n_routed_experts"`
	Shared       int     `json:"n_shared_experts"`
	Width        int     `json:"moe_intermediate_size"`
	Normalize    bool    `json:"norm_topk_prob"`
	RoutedScale  float32 `json:"routed_scaling_factor"`
	Method       string  `json:"topk_method"`
	Scoring      string  `json:"scoring_func"`
	Groups       *int    `json:"n_group"`
	TopGroups    *int    `json:"topk_group"`
	DenseLayers  int     `json:"first_k_dense_replace"`
	LayerFreq    int     `json:"moe_layer_freq"`
	OutputLogits bool    `json:"output_router_logits"` // of transformers, without a loss
	Predicting   int     `json:"num_nextn_predict_layers"`
}

// deepseekArch reads what V2 and V3 name alike.
func deepseekArch(r *reader, k *deepseekKeys, end int) *Arch {
	k.HiddenAct, k.NormEps, k.InitializerRange = "silu", 1e-6, 0.02
	k.QueryRank, k.Rank, k.Plain, k.Turned, k.Value, k.Interleaved, k.LayerFreq = ptr(1536), 512, 128, 64, 128, true, 1
	r.decode(k)
	r.knowAllOf(k)
	a := decoderArch(r, &k.decoderKeys, end)
	l := &Latent{
		Rank: r.size("kv_lora_rank", k.Rank), Plain: r.size("qk_nope_head_dim", k.Plain), Turned: r.size("qk_rope_head_dim", k.Turned), Value: r.size("v_head_dim", k.Value),
		query: "self_attn.q_proj", queryDown: "self_attn.q_a_proj", queryNorm: "self_attn.q_a_layernorm",
		down: "self_attn.kv_a_proj_with_mqa", norm: "self_attn.kv_a_layernorm", keysValues: "self_attn.kv_b_proj",
	}
	if k.QueryRank != nil {
		l.QueryRank, l.query = r.size("q_lora_rank", *k.QueryRank), "self_attn.q_b_proj"
	}
	rope := r.rope("", l.Turned, a.Positions, 10000)
	if rope != nil && k.Interleaved {
		rope = rope.Interleaved()
	}
	scale := k.scoreScale(r, l.Plain+l.Turned)
	for i := range a.Attention {
		t := &a.Attention[i]
		t.Latent, t.Dim, t.Rope, t.Scale = l, l.Plain+l.Turned, rope, scale
	}
	a.setBias(k.AttentionBias)
	if len(a.Attention) > 0 && a.Attention[0].KVHeads != a.Attention[0].Heads {
		r.fail("num_key_value_heads: expected num_attention_heads, %d, found %d", a.Attention[0].Heads, a.Attention[0].KVHeads)
	}
	if l.Value > l.Plain+l.Turned {
		r.fail("v_head_dim: expected at most the %d of queries and keys, found %d", l.Plain+l.Turned, l.Value)
	}
	a.setMixture(r, &mixtureKeys{TopK: k.TopK}, "n_routed_experts", k.Experts)
	m := &a.Mixture
	m.setExpertWidth(r, k.Width)
	m.sharedTimes = r.size("n_shared_experts", k.Shared)
	m.Shared, m.sharedKey, m.Scale = k.Width*m.sharedTimes, m.widthKey, k.RoutedScale
	a.names.mixture.shared = "shared_experts"
	m.dense = map[int]bool{}
	for i := range min(k.DenseLayers, a.Layers) {
		m.dense[i] = true
	}
	a.unusedLayers = r.within("num_nextn_predict_layers", k.Predicting+1, 1, mostLayers) - 1
	if k.MLPBias || k.LayerFreq != 1 || !(k.RoutedScale > 0) {
		r.fail("expected mlp_bias false, moe_layer_freq 1 and routed_scaling_factor above 0, found %t, %d and %g", k.MLPBias, k.LayerFreq, k.RoutedScale)
	}
	return a
}

// scoreScale is what multiplies scores: 1/√dim, by which YaRN's factor goes where it is
// for all elements of a head (mscale_all_dim).
func (k *deepseekKeys) scoreScale(r *reader, dim int) float32 {
	var rope struct {
		Parameters ropeKeys `json:"rope_parameters"`
		Scaling    ropeKeys `json:"rope_scaling"`
	}
	r.decode(&rope)
	scale := 1 / math.Sqrt(float64(dim))
	for _, s := range []ropeKeys{rope.Parameters, rope.Scaling} {
		if s.MscaleAllDim != 0 && s.Factor > 1 {
			m := 0.1*s.MscaleAllDim*math.Log(s.Factor) + 1
			return float32(scale * m * m)
		}
	}
	return float32(scale)
}

// groups has a router choose among the experts of its best groups.
func (k *deepseekKeys) groups(r *reader, router *nn.Router) {
	if k.Groups == nil || k.TopGroups == nil {
		r.fail("n_group and topk_group: expected numbers, found nothing")
		return
	}
	n := r.within("n_group", *k.Groups, 1, max(1, k.Experts/2))
	best := r.within("topk_group", *k.TopGroups, 1, max(1, n))
	switch {
	case r.err != nil:
	case k.Experts%n != 0:
		r.fail("n_routed_experts: expected a multiple of n_group, %d, found %d", n, k.Experts)
	case k.TopK > k.Experts/n*best:
		r.fail("num_experts_per_tok: expected at most the %d experts of topk_group groups, found %d", k.Experts/n*best, k.TopK)
	default:
		router.Groups, router.TopGroups = n, best
	}
}
