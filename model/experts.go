package model

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/nn"
)

// mixtureKeys are the keys of config.json that decoders with mixtures of experts share.
type mixtureKeys struct {
	TopK         int     `json:"num_experts_per_tok"`
	Normalize    bool    `json:"norm_topk_prob"`
	BalanceLoss  float64 `json:"router_aux_loss_coef"`
	OutputLogits bool    `json:"output_router_logits"` // of transformers; what it adds to the loss is asked for at the command line
}

// setMixture gives all layers a mixture of experts, whose number is the value of a key,
// as wide as the MLPs would be.
func (a *Arch) setMixture(r *reader, k *mixtureKeys, key string, experts int) {
	a.Mixture = Mixture{
		expertsKey: key,
		Experts:    r.within(key, experts, 1, mostExperts), Width: a.Intermediate,
		Router: nn.Router{Normalize: k.Normalize}, BalanceLoss: k.BalanceLoss,
	}
	a.Mixture.TopK = r.within("num_experts_per_tok", k.TopK, 1, max(1, a.Mixture.Experts))
	a.names.mixture = mixtureNames{
		name: "mlp", router: "gate", expert: "experts.%d", gate: "gate_proj", up: "up_proj", down: "down_proj",
		gateUpStack: "mlp.experts.gate_up_proj", downStack: "mlp.experts.down_proj",
	}
}

// setExpertWidth gives experts the width that a key holds in place of the MLPs'.
func (m *Mixture) setExpertWidth(r *reader, width int) {
	m.Width, m.widthKey = r.size("moe_intermediate_size", width), "moe_intermediate_size"
}

// sparseKeys tell which layers have a mixture, in Qwen's families.
type sparseKeys struct {
	Step  int   `json:"decoder_sparse_step"`
	Dense []int `json:"mlp_only_layers"`
}

func (a *Arch) setSparse(r *reader, k *sparseKeys) {
	step := r.size("decoder_sparse_step", k.Step)
	a.Mixture.dense = map[int]bool{}
	for i := range a.Layers {
		a.Mixture.dense[i] = step > 0 && (i+1)%step != 0 || slices.Contains(k.Dense, i)
	}
}

// aboutRouters matches keys that say how a mixture routes.
var aboutRouters = regexp.MustCompile(`expert|router|routed|topk|top_k|moe_|scoring|n_group|score_`)

// knowAllOf refuses the keys about routers that a family's struct of keys, which has
// been read, does not have, or that stand in ignored.
func (r *reader) knowAllOf(keys any, ignored ...string) {
	text, err := json.Marshal(keys)
	if err != nil || r.err != nil {
		return
	}
	var known map[string]json.RawMessage
	if err := json.Unmarshal(text, &known); err != nil {
		r.fail("%w", err)
	}
	var unknown []string
	for key := range r.fields {
		if _, ok := known[key]; !ok && aboutRouters.MatchString(key) && !slices.Contains(ignored, key) {
			unknown = append(unknown, key)
		}
	}
	if slices.Sort(unknown); len(unknown) > 0 {
		r.fail("expected no keys about routers that this family does not have, found %s", strings.Join(unknown, ", "))
	}
}

// SetExperts sets the number of experts in a config.json of the model's family.
func (c *Config) SetExperts(cfg *checkpoint.Config, n int) error {
	key := c.Mixture.expertsKey
	for alias, name := range families[c.Type].aliases {
		if name == key && cfg.Has(alias) {
			key = alias // which transformers takes before the family's own
		}
	}
	return cfg.Set(key, n)
}
