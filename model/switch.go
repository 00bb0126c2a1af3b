package model

import "mlpfusion/nn"

// Switch Transformers (arXiv 2101.03961): T5 with mixtures of experts in place of
// some MLPs. transformers has no class with a label head; its tensors are named
// here as T5's and the others as SwitchTransformersModel's, so that transformers
// loads all but the head.
func init() {
	register("switch_transformers", &family{
		architectures: heads("SwitchTransformersForSequenceClassification", "SwitchTransformersForConditionalGeneration"),
		head:          LanguageModel,
		widthKey:      "d_ff",
		unused:        t5Unused,
		buffers:       t5Buffers,
		aliases:       t5Aliases,
		arch:          switchArch,
	})
}

type switchKeys struct {
	DenseAct       string  `json:"dense_act_fn"`
	Experts        int     `json:"num_experts"`
	ExpertCapacity int     `json:"expert_capacity"`
	SparseEncoder  int     `json:"num_sparse_encoder_layers"`
	SparseDecoder  int     `json:"num_sparse_decoder_layers"`
	RouterBias     bool    `json:"router_bias"`
	RouterJitter   float32 `json:"router_jitter_noise"`
	RouterZLoss    float64 `json:"router_z_loss_coef"`
	RouterAuxLoss  float64 `json:"router_aux_loss_coef"`
}

func switchArch(r *reader) *Arch {
	k := switchKeys{DenseAct: "relu", Experts: 8, ExpertCapacity: 64, SparseEncoder: 3, SparseDecoder: 3, RouterJitter: 0.01, RouterZLoss: 0.001, RouterAuxLoss: 0.001}
	r.decode(&k)
	a, s := t5Arch(r)
	a.Act = r.act("dense_act_fn", k.DenseAct)
	a.Mixture = Mixture{
		expertsKey: "num_experts",
		Experts:    r.within("num_experts", k.Experts, 1, mostExperts), Width: a.Intermediate,
		Router:     nn.Router{TopK: 1, Capacity: r.size("expert_capacity", k.ExpertCapacity)},
		RouterBias: k.RouterBias, Jitter: k.RouterJitter, ZLoss: k.RouterZLoss, BalanceLoss: k.RouterAuxLoss, BySequence: true,
	}
	step := func(key string, sparse, layers int) int {
		if sparse < 0 || sparse > layers {
			r.fail("%s: expected 0 to the %d layers, found %d", key, layers, sparse)
		}
		return layers / max(1, sparse) // with none sparse, as transformers: none of several layers
	}
	s.sparse = [2]int{step("num_sparse_encoder_layers", k.SparseEncoder, a.Layers), step("num_sparse_decoder_layers", k.SparseDecoder, a.DecoderLayers)}
	s.mlp = "mlp"
	s.readsStart = true
	if !(a.Mixture.Jitter >= 0 && a.Mixture.Jitter < 1) {
		r.fail("router_jitter_noise: expected a number from 0 to below 1, found %g", a.Mixture.Jitter)
	}
	return a
}
