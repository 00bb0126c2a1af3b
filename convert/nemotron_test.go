package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/model"
	"mlpfusion/python"

	"pgregory.net/rapid"
)

func exportNemotron(t *testing.T, from, out string, pad bool) (*Exported, error) {
	return Export(context.Background(), openDir(t, from), out, ExportOptions{Nemotron: true, Pad: pad, Pool: newPool(t), Sample: sample})
}

// TestExportNemotron: every layer has its own width, the function stays, and what was
// written is exported again to the same.
func TestExportNemotron(t *testing.T) {
	for _, family := range []string{"llama-3", "nemotron-nas"} {
		t.Run(family, func(t *testing.T) {
			dir := t.TempDir()
			small, out, again := filepath.Join(dir, "small"), filepath.Join(dir, "out"), filepath.Join(dir, "again")
			fuse(t, filepath.Join(testdata, family), small, FuseOptions{Plan: Plan{Layers: "1", Width: 20}})
			if _, err := exportNemotron(t, small, out, false); err == nil || !strings.Contains(err.Error(), "give --pad") {
				t.Fatalf("expected a refusal of widths, found %v", err)
			}
			r, err := exportNemotron(t, small, out, true)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.LayerWidths, []int{256, 256, 256}) || r.Padded == 0 {
				t.Errorf("found widths %v, %d padded", r.LayerWidths, r.Padded)
			}
			golden.Near(t, "logits", forward(t, out), forward(t, small), 1e-5)
			was, is := files(t, small), files(t, out)
			if string(is[python.ModelingFile]) != string(python.Modeling) {
				t.Errorf("%s: expected the package's", python.ModelingFile)
			}
			if len(is) != len(was)+1 {
				t.Errorf("found the files %v", is)
			}
			if _, err := Export(context.Background(), openDir(t, out), again, ExportOptions{Pool: newPool(t), Sample: sample}); err != nil {
				t.Fatal(err)
			}
			once, twice := files(t, out), files(t, again)
			if !bytes.Equal(once["model.safetensors"], twice["model.safetensors"]) || !bytes.Contains(twice["config.json"], []byte(`"ffn_mult": `)) {
				t.Error("exported again it differs")
			}
		})
	}
}

// TestNemotronConfig is what a reader of nemotron-nas asks for, as
// vllm/model_executor/models/nemotron_nas.py and llama.cpp's conversion/deci.py have it.
func TestNemotronConfig(t *testing.T) {
	dir := t.TempDir()
	wide, out := filepath.Join(dir, "wide"), filepath.Join(dir, "out")
	fuse(t, filepath.Join(testdata, "llama-3"), wide, FuseOptions{Plan: Plan{Layers: "0", Width: 30}})
	if _, err := exportNemotron(t, wide, out, true); err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(files(t, out)["config.json"], &c); err != nil {
		t.Fatal(err)
	}
	block := `{"attention":{"n_heads_in_group":2,"no_op":false,"replace_with_linear":false},"ffn":{"ffn_mult":12,"no_op":false,"replace_with_linear":false}}`
	want := map[string]string{
		"model_type":    `"nemotron-nas"`,
		"architectures": `["DeciLMForCausalLM"]`,
		"block_configs": "[" + block + "," + block + "," + block + "]",
		"auto_map":      `{"AutoConfig":"modeling_mlpfusion.DeciLMConfig","AutoModel":"modeling_mlpfusion.DeciLMModel","AutoModelForCausalLM":"modeling_mlpfusion.DeciLMForCausalLM"}`,
	}
	for key, text := range want {
		if found, _ := json.Marshal(c[key]); string(found) != text {
			t.Errorf("%s: found %s, want %s", key, found, text)
		}
	}
	if _, ok := c["intermediate_size"]; ok {
		t.Error("found intermediate_size, which is no layer's")
	}
}

// TestNemotronWidths: the ffn_mult of every multiple of 256 is read as that again, by
// Python's arithmetic as by ours, and has a decimal point.
func TestNemotronWidths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hidden := 2 * rapid.IntRange(1, 1<<15).Draw(t, "hidden")
		width := 256 * rapid.IntRange(1, 512).Draw(t, "width")
		text, err := json.Marshal(decimal(1.5 * float64(width) / float64(hidden)))
		if err != nil || !strings.Contains(string(text), ".") {
			t.Fatalf("%s, %v", text, err)
		}
		c, err := model.ParseConfig([]byte(`{"model_type": "nemotron-nas", "hidden_size": ` + strconv.Itoa(hidden) + `, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 8,
			"block_configs": [{"attention": {"n_heads_in_group": 1}, "ffn": {"ffn_mult": ` + string(text) + `}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.Widths, []int{width}) {
			t.Errorf("%d units of %d: found %v", width, hidden, c.Widths)
		}
	})
}

// TestNoNemotron: what cannot be said in the format is refused by name.
func TestNoNemotron(t *testing.T) {
	for family, words := range map[string]string{
		"llama":            "head_dim: expected hidden_size over num_attention_heads, 8, found 12",
		"llama-linear":     `expected one of default, llama3, found "linear"`,
		"llama-classifier": "it has a classification head",
		"qwen2":            "its attention, norms or tensors differ",
		"qwen3":            "head_dim",
		"mistral":          `found "yarn"`,
		"phi3":             "",
		"olmo2":            "its attention, norms or tensors differ",
		"gpt2":             "",
		"bert":             "it has a classification head",
		"mixtral":          "it has mixtures of experts",
		"t5":               "it has an encoder and a decoder",
	} {
		t.Run(family, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			_, err := exportNemotron(t, filepath.Join(testdata, family), out, true)
			if err == nil || !strings.Contains(err.Error(), "model_type: expected llama or one of the same shape") || !strings.Contains(err.Error(), words) {
				t.Errorf("found %v", err)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("something was written")
			}
		})
	}
}
