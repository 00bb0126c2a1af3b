package model_test

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

func newAdapter(t *testing.T, name string, targets ...string) *checkpoint.Adapter {
	t.Helper()
	dir, err := checkpoint.OpenDir(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	a, err := model.NewAdapter(dir, model.LoadOptions{}, name, model.AdapterOptions{Rank: 3, Alpha: 6, Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAdapterTargets: the ends of names that an adapter is written with choose, in PEFT's
// way, the layers that were asked for and no others.
func TestAdapterTargets(t *testing.T) {
	for _, name := range []string{"bert", "bert-fused", "bert-svd", "roberta", "distilbert", "gpt2", "gpt2-classifier", "llama", "llama-classifier", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "nemotron-nas", "t5", "t5-gated", "t5-label", "t5-untied", "switch", "switch-label", "switch-fused", "mixtral"} {
		plain := load(t, name, model.LoadOptions{})
		for _, targets := range []string{"all", "attention", "mlp"} {
			a := newAdapter(t, name, targets)
			m := load(t, name, model.LoadOptions{Adapter: a})
			got := map[string]bool{}
			for _, p := range m.Params {
				module, second := strings.CutSuffix(p.Name, ".lora_B.weight")
				if second {
					got[module] = true
				}
			}
			count := 0
			mlp, routers := map[string]bool{}, map[string]bool{}
			for _, b := range plain.Blocks {
				routers[b.Router] = true
				for _, x := range b.Tensors() {
					mlp[x.Name] = true
				}
			}
			for i := range plain.Tensors {
				x := &plain.Tensors[i]
				want := x.Layer && !x.Head && !routers[x.Name] && (targets == "all" || mlp[x.Name] == (targets == "mlp"))
				module := strings.TrimSuffix(x.Name, ".weight")
				if x.In != "" {
					module = strings.TrimSuffix(x.In, ".weight")
				}
				switch {
				case want && !got[module]:
					t.Errorf("%s, %s: %s has no path", name, targets, module)
				case want && x.Part == 0:
					count++
				}
			}
			if count != len(got) || count == 0 {
				t.Errorf("%s, %s: %d paths, want %d", name, targets, len(got), count)
			}
			if m.Config.Head == model.LanguageModel != (len(a.Save) == 0) {
				t.Errorf("%s: modules to save %v with a %s head", name, a.Save, m.Config.Head)
			}
		}
	}
	if got := newAdapter(t, "bert", "mlp").Targets; !slices.Contains(got, "intermediate.dense") || slices.Contains(got, "output.dense") {
		t.Errorf("targets %v: attention.output.dense is an output.dense too", got)
	}
	if got := newAdapter(t, "llama", "q_proj", "layers.1.mlp.up_proj").Targets; !slices.Equal(got, []string{"q_proj", "1.mlp.up_proj"}) {
		t.Errorf("targets %v", got)
	}
	for _, none := range []string{"proj", "lm_head", "embed_tokens"} {
		dir, err := checkpoint.OpenDir("testdata/llama")
		if err != nil {
			t.Fatal(err)
		}
		_, err = model.NewAdapter(dir, model.LoadOptions{}, "llama", model.AdapterOptions{Rank: 3, Alpha: 6, Targets: []string{none}})
		dir.Close()
		if err == nil || !strings.Contains(err.Error(), "such as q_proj, found \""+none) {
			t.Errorf("%s: %v", none, err)
		}
	}
}

// TestAdapterOfAnother: an adapter that was made for another model is refused.
func TestAdapterOfAnother(t *testing.T) {
	for name, want := range map[string]string{
		"roberta":         "testdata/lora-bert: expected an adapter of this model (it was made for ../bert): ",
		"bert-fused":      "bert.encoder.layer.1.intermediate.dense.lora_B.weight: expected shape [16 4], found [64 4]",
		"bert-regression": "classifier.weight: expected a float tensor of shape [1 32] in the adapter, found F32 [2 32]",
	} {
		a, err := checkpoint.OpenAdapter(filepath.Join("testdata", "lora-bert"))
		if err != nil {
			t.Fatal(err)
		}
		for _, merge := range []bool{false, true} {
			dir, err := checkpoint.OpenDir(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = model.Load(dir, model.LoadOptions{Adapter: a, Merge: merge})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
			dir.Close()
		}
		a.Close()
	}
}

// TestBase: a base kept in bfloat16 or as int8 gives, to the last bit, the loss and
// gradients of one whose matrices are rounded so, in a family of each kind, of Llama 3
// with layers that are run again.
func TestBase(t *testing.T) {
	for _, base := range []model.Base{model.BaseBF16, model.BaseInt8} {
		t.Run(string(base), func(t *testing.T) { testBase(t, base) })
	}
}

func testBase(t *testing.T, base model.Base) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for _, name := range []string{"bert", "gpt2", "gpt2-classifier", "llama-3", "phi3", "t5-gated", "switch"} {
		a, err := checkpoint.OpenAdapter(filepath.Join("testdata", "lora-"+name))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		var losses []float64
		var grads [][][]float32
		var rounded map[string][]float32
		for _, narrow := range []model.Base{base, model.BaseFP32} {
			m := load(t, name, model.LoadOptions{Adapter: a, Base: narrow})
			if narrow != model.BaseFP32 {
				rounded = map[string][]float32{}
			}
			kept := 0
			for i := range m.Tensors {
				p := m.Tensors[i].Param
				if p == nil || !p.Weight.Frozen || p.Weight.Rows == 1 {
					continue
				}
				if p.Data == nil {
					kept += p.Len()
					rounded[p.Name] = p.Values()
				} else if v := rounded[p.Name]; v != nil {
					half := 0x1p-9 // of a step, of a value
					if base == model.BaseInt8 {
						half = math.Sqrt(float64(p.Cols)) / 254 // of a row's largest, in each of its values
					}
					golden.NearNorm(t, name+": "+p.Name, v, p.Data, half)
					copy(p.Data, v)
				}
			}
			if (narrow != model.BaseFP32) != (kept > 0) {
				t.Errorf("%s: %d values are kept as %s", name, kept, narrow)
			}
			if name == "llama-3" {
				if err := m.Recompute(true); err != nil {
					t.Fatal(err)
				}
			}
			g := openGolden(t, "lora-"+name)
			in := &model.Input{IDs: g.Ints("a.ids"), Offsets: g.Ints("a.offsets")}
			var labels []float32
			if m.Config.Head == model.LanguageModel {
				in.Targets = g.Ints("a.targets")
				if m.Config.TwoStacks() {
					in.DecoderIDs, in.DecoderOffsets = g.Ints("a.decoder_ids"), g.Ints("a.decoder_offsets")
				}
			} else {
				in.Types, labels = g.Ints("a.types"), g.Floats("a.labels")
			}
			tape := nn.NewTape(pool)
			tape.Train = true
			tape.Reset(0)
			losses = append(losses, m.Loss(tape, nn.CrossEntropy, in, labels))
			tape.Backward()
			var all [][]float32
			for _, p := range m.Params {
				p.Weight.SettleGrad()
				all = append(all, p.Grad())
			}
			grads = append(grads, all)
		}
		golden.NearValue(t, name+": loss", losses[1], losses[0], 0)
		for i := range grads[0] {
			golden.Near(t, name+": a gradient", grads[1][i], grads[0][i], 0)
		}
	}
}
