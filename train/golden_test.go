package train

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

const testdata = "../model/testdata"

func load(t testing.TB, name string, opt model.LoadOptions) *model.Model {
	t.Helper()
	dir, err := checkpoint.OpenDir(filepath.Join(testdata, name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func openGolden(t testing.TB, name string) *golden.File {
	t.Helper()
	return golden.Open(t, filepath.Join(testdata, name, "golden.safetensors"))
}

func batch(r *golden.File, name string) *task.Batch {
	b := &task.Batch{IDs: r.Ints(name + ".ids"), Offsets: r.Ints(name + ".offsets")}
	if slices.Contains(r.Names(), name+".targets") {
		b.Targets = r.Ints(name + ".targets")
		if slices.Contains(r.Names(), name+".decoder_ids") {
			b.DecoderIDs, b.DecoderOffsets = r.Ints(name+".decoder_ids"), r.Ints(name+".decoder_offsets")
		}
	} else {
		b.Types, b.Labels = r.Ints(name+".types"), r.Floats(name+".labels")
	}
	return b
}

// TestTenSteps follows PyTorch's AdamW for ten steps on two batches in turn, so
// that embedding rows come and go, and compares losses, gradient norms and
// final parameters.
func TestTenSteps(t *testing.T) {
	for _, name := range []string{"bert", "bert-regression", "bert-fused", "roberta", "distilbert", "gpt2", "gpt2-options", "gpt2-fused", "gpt2-classifier", "llama", "llama-3", "llama-linear", "llama-yarn", "llama-classifier", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gemma3-classifier", "phi3", "olmo2", "nemotron-nas", "mixtral", "qwen2-moe", "qwen3-moe", "olmoe", "granitemoe", "deepseek-v2", "deepseek-v2-groups", "deepseek-v3", "deepseek-v3-halves", "t5", "t5-gated", "t5-label", "t5-fused", "switch", "switch-label", "switch-fused"} {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			m.RouterLosses = name == "switch" || slices.Contains(g.Names(), "balance_loss") // as its golden has them
			s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
			batches := []*task.Batch{batch(g, "a"), batch(g, "b")}
			losses, norms := g.Floats("losses"), g.Floats("norms")
			for i := range 10 {
				loss := s.Step(batches[i%2], 1e-3)
				golden.NearValue(t, fmt.Sprintf("step %d: loss", i), loss, float64(losses[i]), 1e-4)
				golden.NearValue(t, fmt.Sprintf("step %d: gradient norm", i), s.Optimizer.Norm(), float64(norms[i]), 1e-4*float64(norms[i]))
			}
			s.Optimizer.Flush()
			checked := 0
			for _, p := range m.Params {
				if !slices.Contains(g.Names(), "final."+p.Name) {
					continue
				}
				checked++
				data := p.Data
				if p.Transposed {
					data = model.Transpose(data, p.Shape[1], p.Shape[0])
				}
				// Ten steps move a parameter by at most 1e-2; Adam may turn rounding in
				// a tiny gradient into part of a step.
				golden.Near(t, p.Name+" after ten steps", data, g.Floats("final."+p.Name), 2e-5)
			}
			if checked < 3 && !strings.Contains(name, "regression") {
				t.Errorf("only %d final parameters in the golden", checked)
			}
		})
	}
}
