package convert

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/checkpoint"
)

// decoderMLP is the name of an MLP's matrix in the checkpoint of a decoder with Llama's
// layout: the layer with its name, its number and the matrix.
var decoderMLP = regexp.MustCompile(`^((?:model\.)?layers\.(\d+))\.mlp\.(gate|up|down)_proj\.weight$`)

// The keys of which a dense family's defaults differ from those of the family it becomes:
// they are written out.
func init() {
	mixtral := func(from string, defaults map[string]any) upcycling {
		w := map[string]string{"gate": "w1", "up": "w3", "down": "w2"}
		u := decoderUpcycling(from, "mixtral", "Mixtral", "block_sparse_moe", "num_local_experts", defaults)
		u.expert = func(mixture string, e int, matrix string) string {
			return fmt.Sprintf("%s.experts.%d.%s.weight", mixture, e, w[matrix])
		}
		return u
	}
	llama := map[string]any{"num_key_value_heads": nil, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "router_jitter_noise": 0.0}
	mistral := map[string]any{"num_key_value_heads": 8, "max_position_embeddings": 4096 * 32, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "sliding_window": 4096, "router_jitter_noise": 0.0}
	qwen3 := map[string]any{
		"num_key_value_heads": 32, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "head_dim": 128,
		"norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": []int{},
	}
	upcyclings = append(upcyclings, mixtral("llama", llama), mixtral("mistral", mistral),
		decoderUpcycling("qwen3", "qwen3_moe", "Qwen3Moe", "mlp", "num_experts", qwen3))
}

// decoderUpcycling is the way of a decoder with Llama's layout to mixtures of that name in
// a layer. class begins the names of its classes in transformers, experts is the key of
// their number.
func decoderUpcycling(from, to, class, name, experts string, defaults map[string]any) upcycling {
	return upcycling{
		from: from, to: to,
		config: func(u *upcycler, cfg *checkpoint.Config) error { return u.decoderConfig(cfg, class, experts, defaults) },
		mlp: func(tensor string) (mixture, matrix string, layer int, ok bool) {
			m := decoderMLP.FindStringSubmatch(tensor)
			if m == nil {
				return "", "", 0, false
			}
			layer, err := strconv.Atoi(m[2])
			return m[1] + "." + name, m[3], layer, err == nil
		},
		expert: func(mixture string, e int, matrix string) string {
			return fmt.Sprintf("%s.experts.%d.%s_proj.weight", mixture, e, matrix)
		},
		router: func(mixture string) string { return mixture + ".gate.weight" },
		other:  func(name string) string { return name },
		first:  "gate", down: "down",
	}
}

// decoderConfig makes the config.json of a decoder with mixtures of a dense one's.
func (u *upcycler) decoderConfig(cfg *checkpoint.Config, class, experts string, defaults map[string]any) error {
	for _, key := range []string{"attention_bias", "mlp_bias", "use_sliding_window"} {
		if raw := string(cfg.Raw(key)); raw != "" && raw != "false" && raw != "null" {
			return fmt.Errorf("config.json: %s: expected false, as %s has it, found %s", key, u.way.to, raw)
		}
		cfg.Delete(key)
	}
	width, err := cfg.Int("intermediate_size")
	if err != nil {
		return err
	}
	heads, err := cfg.Int("num_attention_heads")
	if err != nil {
		return err
	}
	set := func(key string, v any) {
		if err == nil {
			err = cfg.Set(key, v)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(defaults)) {
		v := defaults[key]
		if key == "rope_theta" && cfg.Has("rope_parameters") {
			continue // it stands there
		}
		if v == nil {
			v = heads
		}
		if !cfg.Has(key) {
			set(key, v)
		}
	}
	for _, key := range []string{"_name_or_path", "pretraining_tp"} {
		cfg.Delete(key)
	}
	architecture := class + "ForCausalLM"
	if names, err := cfg.Strings("architectures"); err == nil && len(names) == 1 && strings.HasSuffix(names[0], "ForSequenceClassification") {
		architecture = class + "ForSequenceClassification"
	}
	set("architectures", []string{architecture})
	set("model_type", u.way.to)
	set(experts, u.o.Experts)
	set("num_experts_per_tok", u.o.TopK)
	if u.way.to == "qwen3_moe" {
		set("moe_intermediate_size", width)
	}
	set("output_router_logits", false)
	set("router_aux_loss_coef", 0.001)
	return err
}
