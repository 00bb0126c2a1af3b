package convert

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/checkpoint"
)

// t5MLP is the name of an MLP's matrix in a T5 checkpoint: the stack, the layer,
// the sublayer and the matrix.
var t5MLP = regexp.MustCompile(`^(?:transformer\.)?(encoder|decoder)\.block\.(\d+)\.layer\.(\d+)\.DenseReluDense\.(wi|wo)\.weight$`)

func init() {
	upcyclings = append(upcyclings, upcycling{
		from: "t5", to: "switch_transformers", config: ofSwitch,
		mlp: func(name string) (mixture, matrix string, layer int, ok bool) {
			m := t5MLP.FindStringSubmatch(name)
			if m == nil {
				return "", "", 0, false
			}
			layer, err := strconv.Atoi(m[2])
			return fmt.Sprintf("%s.block.%s.layer.%s.mlp", m[1], m[2], m[3]), m[4], layer, err == nil
		},
		expert: func(mixture string, e int, matrix string) string {
			return fmt.Sprintf("%s.experts.expert_%d.%s.weight", mixture, e, matrix)
		},
		router: func(mixture string) string { return mixture + ".router.classifier.weight" },
		dense:  func(mixture, matrix string) string { return mixture + "." + matrix + ".weight" },
		// A T5 with a label head has a prefix that Switch has not.
		other: func(name string) string { return strings.TrimPrefix(name, "transformer.") },
		first: "wi", down: "wo", weighted: true,
	})
}

// ofSwitch makes the config.json of a Switch Transformer of a T5's.
func ofSwitch(u *upcycler, cfg *checkpoint.Config) error {
	act := "relu"
	if cfg.Has("feed_forward_proj") {
		var err error
		if act, err = cfg.String("feed_forward_proj"); err != nil {
			return err
		}
	}
	if strings.HasPrefix(act, "gated") {
		return fmt.Errorf("config.json: feed_forward_proj: expected an MLP without a gate, as Switch Transformers has, found %q", act)
	}
	encoder, err := cfg.Int("num_layers")
	if err != nil {
		return err
	}
	decoder := encoder
	if cfg.Has("num_decoder_layers") {
		if decoder, err = cfg.Int("num_decoder_layers"); err != nil {
			return err
		}
	}
	set := func(key string, v any) {
		if err == nil {
			err = cfg.Set(key, v)
		}
	}
	for _, stack := range []struct {
		key    string
		layers int
	}{{"num_sparse_encoder_layers", encoder}, {"num_sparse_decoder_layers", decoder}} {
		// transformers has the number of sparse layers and takes their distance
		// from it.
		sparse := stack.layers / max(1, u.o.Every)
		if u.o.Every < 1 || sparse < 1 || stack.layers/sparse != u.o.Every {
			return fmt.Errorf("every: expected a distance that a number of sparse layers among %d gives (%d divided by 1, 2, …, rounded down), found %d", stack.layers, stack.layers, u.o.Every)
		}
		set(stack.key, sparse)
	}
	for _, key := range []string{"feed_forward_proj", "is_gated_act", "_name_or_path", "scale_decoder_outputs"} {
		cfg.Delete(key)
	}
	set("model_type", u.way.to)
	architecture := "SwitchTransformersForConditionalGeneration"
	if slices.ContainsFunc(u.src.Weights.Names(), func(name string) bool { return strings.HasPrefix(name, "classification_head.") }) {
		architecture = "SwitchTransformersForSequenceClassification" // ours: transformers has none
	}
	set("architectures", []string{architecture})
	set("dense_act_fn", act)
	set("num_experts", u.o.Experts)
	set("expert_capacity", u.o.Capacity)
	set("router_bias", false)
	set("router_dtype", "float32")
	set("router_jitter_noise", 0.01)
	set("router_ignore_padding_tokens", false)
	set("router_z_loss_coef", 0.001)
	set("router_aux_loss_coef", 0.001)
	set("add_router_probs", false)
	return err
}
