package model_test

import (
	"encoding/json"
	"maps"
	"os"
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

type object = map[string]any

// changed is a checkpoint as people have them: one of testdata with other keys in
// config.json and other tensors.
type changed struct {
	config  object
	tensors map[string]floats
	stored  checkpoint.DType
}

type floats struct {
	shape  []int
	values []float32
}

// variant writes a changed checkpoint.
func variant(t *testing.T, name string, change func(c *changed)) *checkpoint.Dir {
	t.Helper()
	from := filepath.Join("testdata", name)
	src, err := checkpoint.OpenDir(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	c := &changed{tensors: map[string]floats{}, stored: checkpoint.F32}
	if err := json.Unmarshal(src.Config.Bytes(), &c.config); err != nil {
		t.Fatal(err)
	}
	for _, n := range src.Weights.Names() {
		x, _ := src.Weights.Tensor(n)
		f := floats{x.Shape, make([]float32, x.Elements())}
		if err := x.ReadFloat32(f.values); err != nil {
			t.Fatal(err)
		}
		c.tensors[n] = f
	}
	change(c)
	to := t.TempDir()
	var specs []checkpoint.Spec
	names := slices.Sorted(maps.Keys(c.tensors))
	for _, n := range names {
		specs = append(specs, checkpoint.Spec{Name: n, DType: c.stored, Shape: c.tensors[n].shape})
	}
	w, err := checkpoint.Create(to, specs, checkpoint.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, n := range names {
		if err := w.WriteFloat32(n, c.tensors[n].values); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(c.config)
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "config.json"), text, 0o644)
	}
	if err == nil {
		err = w.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := checkpoint.OpenDir(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// rename moves a tensor.
func (c *changed) rename(from, to string) {
	c.tensors[to] = c.tensors[from]
	delete(c.tensors, from)
}

// logits are those of a model on a few words.
func logits(t *testing.T, dir *checkpoint.Dir, opt model.LoadOptions) ([]float32, *model.Model, *model.Report) {
	t.Helper()
	m, report, err := model.Load(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(1)
	defer pool.Close()
	in := &model.Input{IDs: []int32{5, 9, 40, 7, 33, 8, 12, 13, 5, 60, 61, 7}, Offsets: []int32{0, 10, 12}}
	return m.Forward(nn.NewTape(pool), in).Data, m, report
}

// TestSameModel: other names of keys and tensors that transformers takes make the same
// model.
func TestSameModel(t *testing.T) {
	same := func(*changed) {}
	for name, c := range map[string]struct {
		of     string
		change func(c *changed)
	}{
		"GPT-2's keys as others name them": {"gpt2", func(c *changed) {
			for from, to := range map[string]string{"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_positions": "max_position_embeddings"} {
				c.config[to] = c.config[from]
				delete(c.config, from)
			}
		}},
		"T5's keys as others name them": {"t5", func(c *changed) {
			for from, to := range map[string]string{"d_model": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads"} {
				c.config[to] = c.config[from]
				delete(c.config, from)
			}
		}},
		"Gemma 2's layers without their kinds": {"gemma2", func(c *changed) { delete(c.config, "layer_types") }},
		"Qwen 2's layers without their kinds":  {"qwen2", func(c *changed) { delete(c.config, "layer_types") }},
		"Gemma 3's keys as version 4 wrote them": {"gemma3", func(c *changed) {
			delete(c.config, "layer_types")
			delete(c.config, "rope_parameters")
			c.config["sliding_window_pattern"], c.config["rope_theta"], c.config["rope_local_base_freq"] = 2, 1e6, 1e4
		}},
		"Gemma 3's defaults": {"gemma3", func(c *changed) {
			for _, of := range c.config["rope_parameters"].(object) {
				delete(of.(object), "rope_theta")
			}
			c.config["rope_theta"] = 1e6
		}},
		"Gemma 3's local rotation left out": {"gemma3", func(c *changed) {
			delete(c.config["rope_parameters"].(object), "sliding_attention")
			c.config["rope_local_base_freq"] = 1e4
		}},
		"YaRN's original length is the model's": {"llama-yarn", func(c *changed) {
			delete(c.config["rope_parameters"].(object), "original_max_position_embeddings")
		}},
		"a part of each head rotated, by an older key": {"phi3", func(c *changed) {
			delete(c.config, "rope_parameters")
			c.config["rope_theta"], c.config["partial_rotary_factor"] = 1000, 0.5
		}},
		"a head and no embeddings, tied":      {"gpt2", func(c *changed) { c.rename("transformer.wte.weight", "lm_head.weight") }},
		"Llama's head and no embeddings, too": {"llama-3", func(c *changed) { c.rename("model.embed_tokens.weight", "lm_head.weight") }},
		"the decoder's embeddings alone":      {"t5-untied", func(c *changed) { c.rename("shared.weight", "decoder.embed_tokens.weight") }},
		"the encoder's embeddings alone":      {"t5", func(c *changed) { c.rename("shared.weight", "encoder.embed_tokens.weight") }},
		"a copy of the head":                  {"gpt2", func(c *changed) { c.tensors["lm_head.weight"] = c.tensors["transformer.wte.weight"] }},
		"weights in float64":                  {"bert", func(c *changed) { c.stored = checkpoint.F64 }},
		"a buffer of positions": {"distilbert", func(c *changed) {
			c.tensors["distilbert.embeddings.position_ids"] = floats{[]int{1, 2}, []float32{0, 1}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			want, _, _ := logits(t, variant(t, c.of, same), model.LoadOptions{})
			got, m, report := logits(t, variant(t, c.of, c.change), model.LoadOptions{})
			golden.Near(t, "logits", got, want, 0)
			if len(m.Config.Notes) > 0 {
				t.Errorf("found notes %q", m.Config.Notes)
			}
			if name != "a copy of the head" && len(report.Unused) > 0 {
				t.Errorf("not used: %q", report.Unused)
			}
		})
	}
}

// TestActivationNames: names of one function give one model.
func TestActivationNames(t *testing.T) {
	with := func(act string) []float32 {
		v, _, _ := logits(t, variant(t, "bert", func(c *changed) { c.config["hidden_act"] = act }), model.LoadOptions{})
		return v
	}
	exact, tanh := with("gelu"), with("gelu_new")
	golden.Near(t, "gelu_python", with("gelu_python"), exact, 0)
	for _, name := range []string{"gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"} {
		golden.Near(t, name, with(name), tanh, 0)
	}
}

// TestUntiedAllTheSame: a head that differs from the embeddings is used, whatever
// config.json says, and said.
func TestUntiedAllTheSame(t *testing.T) {
	want, _, _ := logits(t, variant(t, "gpt2", func(*changed) {}), model.LoadOptions{})
	dir := variant(t, "gpt2", func(c *changed) {
		head := c.tensors["transformer.wte.weight"]
		head.values = slices.Clone(head.values)
		kernel.Scale(head.values, 2)
		c.tensors["lm_head.weight"] = head
	})
	got, m, _ := logits(t, dir, model.LoadOptions{})
	kernel.Scale(want, 2)
	golden.Near(t, "logits", got, want, 0)
	if len(m.Config.Notes) != 1 || m.Config.Notes[0] != "lm_head.weight differs from transformer.wte.weight: both are used, though config.json's tie_word_embeddings is true" {
		t.Errorf("found notes %q", m.Config.Notes)
	}
}

// TestStaleLabels: num_labels counts where id2label names another number of labels, as
// in transformers.
func TestStaleLabels(t *testing.T) {
	dir := variant(t, "bert", func(c *changed) {
		c.config["num_labels"] = 3
		c.config["id2label"], c.config["label2id"] = map[string]string{"0": "a", "1": "b"}, map[string]int{"a": 0, "b": 1}
		c.config["problem_type"] = nil
		hidden := c.tensors["classifier.weight"].shape[1]
		c.tensors["classifier.weight"] = floats{[]int{3, hidden}, make([]float32, 3*hidden)}
		c.tensors["classifier.bias"] = floats{[]int{3}, []float32{1, 2, 3}}
	})
	got, m, _ := logits(t, dir, model.LoadOptions{})
	golden.Near(t, "logits", got[:3], []float32{1, 2, 3}, 0)
	if !slices.Equal(m.Config.Labels, []string{"LABEL_0", "LABEL_1", "LABEL_2"}) || len(m.Config.Notes) != 1 || !strings.Contains(m.Config.Notes[0], "num_labels is 3, but id2label names 2") {
		t.Errorf("labels %q, notes %q", m.Config.Labels, m.Config.Notes)
	}
}

// TestOnlyPadding: of a text of padding alone the first token is read, as transformers
// does.
func TestOnlyPadding(t *testing.T) {
	m := load(t, "gpt2-padded", model.LoadOptions{})
	pool := kernel.NewPool(1)
	defer pool.Close()
	pad := int32(m.Config.PadID)
	got := m.Forward(nn.NewTape(pool), &model.Input{IDs: []int32{pad, pad, pad}, Offsets: []int32{0, 3}}).Data
	want := m.Forward(nn.NewTape(pool), &model.Input{IDs: []int32{pad}, Offsets: []int32{0, 1}}).Data
	golden.Near(t, "logits", got, want, 1e-6)
}

// TestNewNorms: gains begin at 1 in a new model, also where they are 1 + weight.
func TestNewNorms(t *testing.T) {
	for family, want := range map[string]float32{"llama": 1, "gemma2": 0} {
		m, err := model.FromScratch(variant(t, family, func(*changed) {}).Config, model.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Params {
			if strings.Contains(p.Name, "norm") && (slices.Min(p.Data) != want || slices.Max(p.Data) != want) {
				t.Errorf("%s of %s begins at %v", p.Name, family, p.Data[0])
			}
		}
	}
}

// TestOtherHead: the head of another task gives way to a new one and is named.
func TestOtherHead(t *testing.T) {
	dir := variant(t, "bert", func(c *changed) {
		c.config["architectures"] = []string{"BertForQuestionAnswering"}
		hidden := c.tensors["classifier.weight"].shape[1]
		for _, part := range []string{"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"} {
			delete(c.tensors, part)
		}
		c.tensors["qa_outputs.weight"] = floats{[]int{2, hidden}, make([]float32, 2*hidden)}
		c.tensors["qa_outputs.bias"] = floats{[]int{2}, make([]float32, 2)}
	})
	_, _, report := logits(t, dir, model.LoadOptions{NewHead: true, Head: model.Classification, Labels: []string{"a", "b"}})
	if len(report.New) != 4 || !slices.Equal(report.Unused, []string{"qa_outputs.bias", "qa_outputs.weight"}) {
		t.Errorf("new: %q; not used: %q", report.New, report.Unused)
	}
}

// TestUnits: a share of a wide Llama's units is a multiple of 64, of others any number.
func TestUnits(t *testing.T) {
	for _, c := range []struct {
		family string
		units  int
		share  float64
		want   int
	}{
		{"llama-3", 1536, 0.3, 448},
		{"llama-3", 1536, 0.001, 64},
		{"llama-3", 1536, 1, 1536},
		{"llama-3", 1500, 0.3, 450},
		{"bert", 1536, 0.3, 461},
		{"bert", 1536, 0.0001, 1},
	} {
		var config object
		text, err := os.ReadFile(filepath.Join("testdata", c.family, "config.json"))
		if err == nil {
			err = json.Unmarshal(text, &config)
		}
		config["intermediate_size"] = c.units
		if err == nil {
			text, err = json.Marshal(config)
		}
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := model.ParseConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		_, blocks, err := model.Describe(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Units(c.share); got != c.want || blocks[0].Units(c.share) != got {
			t.Errorf("%g of %d units of %s: found %d and %d of a block, want %d", c.share, c.units, c.family, got, blocks[0].Units(c.share), c.want)
		}
	}
}
