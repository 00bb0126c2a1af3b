package model_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// mixtures are checkpoints of decoders with mixtures of experts
// (scripts/goldens/mixtures.py), which the tests of language models use too.
var mixtures = []string{"mixtral", "qwen2-moe", "qwen3-moe", "olmoe", "granitemoe", "deepseek-v2", "deepseek-v2-groups", "deepseek-v3", "deepseek-v3-halves"}

// TestChoices compares the experts that each token goes to, and their weights, with
// transformers', and the routers' loss.
func TestChoices(t *testing.T) {
	for _, name := range mixtures {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			tape.Reset(0)
			tape.Train = true // keeps what the routers say
			m.RouterLosses = slices.Contains(g.Names(), "balance_loss")
			if m.RouterLosses {
				m.Loss(tape, nn.CrossEntropy, g.text("a"), nil)
				want := float64(g.Floats("balance_loss")[0])
				golden.NearValue(t, "balance loss", m.BalanceLoss[0], want, 1e-6*want)
			}
			m.ClearUsage()
			m.ForwardAll(tape, g.text("a"), &model.Output{AllTokens: true})
			for i, r := range m.Routings() {
				experts, weights := g.Ints("expert."+strconv.Itoa(i)), g.Floats("weight."+strconv.Itoa(i))
				seen := make([]int64, r.Experts)
				k := r.Router.TopK
				var got []float32 // in the golden's order
				for j, e := range experts {
					seen[e]++
					token := j / k * k
					at := slices.Index(r.Expert[token:token+k], e)
					if at < 0 {
						t.Fatalf("mixture %d: token %d goes to %v, want %v", i, j/k, r.Expert[token:token+k], experts[token:token+k])
					}
					got = append(got, r.Weight[token+at])
				}
				golden.Near(t, fmt.Sprintf("mixture %d: weights", i), got, weights, 1e-5)
				if u := m.Usage()[i]; !slices.Equal(u.Tokens, seen) || u.Dropped != 0 {
					t.Errorf("%s: counted %v and dropped %d, want %v", u.Name, u.Tokens, u.Dropped, seen)
				}
			}
		})
	}
}

// TestStacked loads a checkpoint whose experts lie in stacks: it is that which has a
// tensor for each, and is saved as such.
func TestStacked(t *testing.T) {
	for _, name := range []string{"mixtral"} {
		m, stacked := load(t, name, model.LoadOptions{}), load(t, name+"-stacked", model.LoadOptions{})
		for i, p := range m.Params {
			if q := stacked.Params[i]; p.Name != q.Name || !slices.Equal(p.Data, q.Data) {
				t.Errorf("%s differs from %s in the stacked checkpoint", p.Name, q.Name)
			}
		}
		dir, err := checkpoint.OpenDir(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		out, err := checkpoint.CreateOutput(filepath.Join(t.TempDir(), "saved"), false)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Abort()
		if err := stacked.Save(out, dir.Config); err != nil {
			t.Fatal(err)
		}
		saved, err := checkpoint.OpenDir(out.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer saved.Close()
		got, want := slices.Sorted(slices.Values(saved.Weights.Names())), slices.Sorted(slices.Values(dir.Weights.Names()))
		if !slices.Equal(got, want) {
			t.Errorf("%s: saved %s, want %s", name, strings.Join(got, " "), strings.Join(want, " "))
		}
	}
}

// TestRouterKeys refuses what config.json says of routers and the family does not know.
func TestRouterKeys(t *testing.T) {
	for _, c := range []struct{ of, key, value, want string }{
		{"mixtral", "scoring_func", `"sigmoid"`, "expected no keys about routers that this family does not have, found scoring_func"},
		{"mixtral", "router_jitter_noise", "1", "router_jitter_noise: expected a number from 0 to below 1, found 1"},
		{"mixtral", "norm_topk_prob", "false", "norm_topk_prob: expected true, found false"},
		{"mixtral", "num_experts_per_tok", "6", "num_experts_per_tok: expected between 1 and 5, found 6"},
		{"qwen3-moe", "n_shared_experts", "1", "found n_shared_experts"},
		{"qwen2-moe", "decoder_sparse_step", "-1", "decoder_sparse_step: expected between 1 and"},
		{"olmoe", "clip_qkv", "0", "clip_qkv: expected a number above 0, found 0"},
		{"granitemoe", "logits_scaling", "-2", "logits_scaling: expected a number above 0, found -2"},
		{"deepseek-v2", "scoring_func", `"sigmoid"`, "expected norm_topk_prob false and scoring_func softmax, found false and sigmoid"},
		{"deepseek-v2", "topk_method", `"noaux_tc"`, "topk_method: expected greedy or group_limited_greedy, found"},
		{"deepseek-v3", "n_group", "3", "n_routed_experts: expected a multiple of n_group, 3, found 8"},
		{"deepseek-v3", "num_experts_per_tok", "5", "num_experts_per_tok: expected at most the 4 experts of topk_group groups, found 5"},
		{"deepseek-v3", "v_head_dim", "15", "v_head_dim: expected at most the 14 of queries and keys, found 15"},
		{"deepseek-v3", "num_key_value_heads", "2", "num_key_value_heads: expected num_attention_heads, 4, found 2"},
		{"deepseek-v3", "n_shared_experts", "0", "n_shared_experts: expected between 1 and"},
		{"granitemoe", "norm_topk_prob", "false", "norm_topk_prob: expected true, found false"},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", c.of, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		var config map[string]json.RawMessage
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		config[c.key] = json.RawMessage(c.value)
		text, _ = json.Marshal(config)
		if _, err := model.ParseConfig(text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s %s: %v, want %q", c.of, c.key, c.value, err, c.want)
		}
	}
}

// TestPredictingLayers loads a DeepSeek-V3 whose file has, after the last layer, the one
// that predicts a token further on: it is not used.
func TestPredictingLayers(t *testing.T) {
	of := func(layer string) *checkpoint.Dir {
		return variant(t, "deepseek-v3", func(c *changed) {
			c.tensors["model.layers."+layer+".eh_proj.weight"] = floats{[]int{1}, []float32{1}}
		})
	}
	if _, _, report := logits(t, of("3"), model.LoadOptions{}); !slices.Equal(report.Unused, []string{"model.layers.3.eh_proj.weight"}) {
		t.Errorf("unused are %q", report.Unused)
	}
	if _, _, err := model.Load(of("4"), model.LoadOptions{}); err == nil || !strings.Contains(err.Error(), "model.layers.4.eh_proj.weight: expected no such tensor") {
		t.Errorf("a second such layer: %v", err)
	}
}

// TestRouterJitter: in training Mixtral's router and experts read one and the same input
// times noise, as transformers' do; otherwise, and without noise, they read the input.
func TestRouterJitter(t *testing.T) {
	const eps = 0.2
	pool := kernel.NewPool(2)
	defer pool.Close()
	m := load(t, "mixtral", model.LoadOptions{})
	m.Config.Mixture.Jitter = eps
	if !m.Config.Mixture.JitterExperts {
		t.Fatal("Mixtral's experts read their input without the router's noise")
	}
	tape := nn.NewTape(pool)
	in := openGolden(t, "mixtral").text("a")
	for _, train := range []bool{false, true} {
		tape.Reset(1)
		tape.Train = train
		m.ForwardAll(tape, in, &model.Output{AllTokens: true})
		mixed := m.Mixed(0)
		r, x := mixed.Routing, mixed.X
		router := m.Blocks[0].Router
		w := m.Params[slices.IndexFunc(m.Params, func(p *nn.Param) bool { return p.Name == router })].Data
		noisy, rows := 0, map[int][]float32{} // what each token's experts read
		for j, e := range r.Expert {
			token := j / r.Router.TopK
			at := (int(r.Slot[j]) - int(r.Starts[e])) * x.Cols
			read := m.Blocks[e].MLP.X.Data[at : at+x.Cols]
			if before, ok := rows[token]; ok && !slices.Equal(before, read) {
				t.Fatalf("training %t: the experts of token %d read different inputs", train, token)
			}
			rows[token] = read
			for i, v := range read {
				was := x.Data[token*x.Cols+i]
				if v != was {
					noisy++
				}
				if d := math.Abs(float64(v/was) - 1); !(d <= eps+1e-6) {
					t.Fatalf("training %t: %g became %g", train, was, v)
				}
			}
			var logit float64
			for i, v := range read {
				logit += float64(w[int(e)*x.Cols+i]) * float64(v)
			}
			golden.NearValue(t, "the router's logit", float64(r.Logits.Data[token*r.Experts+int(e)]), logit, 1e-5)
		}
		if len(rows) != x.Rows || (noisy > 0) != train {
			t.Errorf("training %t: %d of %d tokens, %d values differ from the input", train, len(rows), x.Rows, noisy)
		}
	}
}

// TestUnitsOfExperts: a share of the units is a multiple of 64 of each expert where the
// whole is one, and a shared expert made of several gets that many times as much.
func TestUnitsOfExperts(t *testing.T) {
	for _, c := range []struct {
		name string
		set  map[string]any
		want map[string]int // by the key of config.json, of 0.4 of the units
	}{
		{"qwen3-moe", map[string]any{"moe_intermediate_size": 768, "intermediate_size": 6144}, map[string]int{"moe_intermediate_size": 320, "intermediate_size": 2432}},
		{"qwen2-moe", map[string]any{"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632}, map[string]int{"moe_intermediate_size": 576, "shared_expert_intermediate_size": 2240, "intermediate_size": 8}},
		{"deepseek-v2", map[string]any{"moe_intermediate_size": 1408, "n_shared_experts": 2}, map[string]int{"moe_intermediate_size": 576, "intermediate_size": 8}},
		{"deepseek-v3", map[string]any{"moe_intermediate_size": 100}, map[string]int{"moe_intermediate_size": 40, "intermediate_size": 8}},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", c.name, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		var config map[string]any
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		for key, v := range c.set {
			config[key] = v
		}
		text, _ = json.Marshal(config)
		cfg, err := model.ParseConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		_, blocks, err := model.Describe(cfg)
		if err != nil {
			t.Fatal(err)
		}
		got, shared := map[string]int{}, 0
		for _, b := range blocks {
			units := b.Units(0.4)
			if b.Shared {
				shared++
			}
			if units%b.WidthTimes != 0 {
				t.Fatalf("%s: %s: %d units, want a multiple of %d", c.name, b.Name, units, b.WidthTimes)
			}
			units /= b.WidthTimes
			if before, ok := got[b.WidthKey]; ok && before != units {
				t.Errorf("%s: %s gets %d units, others %d", c.name, b.Name, units, before)
			}
			got[b.WidthKey] = units
		}
		if !maps.Equal(got, c.want) || (shared > 0) != (c.name != "qwen3-moe") {
			t.Errorf("%s: %v with %d shared experts, want %v", c.name, got, shared, c.want)
		}
	}
}
