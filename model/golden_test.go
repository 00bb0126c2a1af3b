package model_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// goldens are the checkpoints that transformers saved and what PyTorch computed
// with them (scripts/goldens/model.py).
var goldens = []string{"bert", "bert-regression", "bert-sharded", "bert-f16", "bert-bf16", "bert-fused", "bert-svd", "roberta", "distilbert", "gpt2-classifier", "gpt2-padded", "llama-classifier", "gemma3-classifier", "t5-label", "switch-label", "switch-fused"}

func load(t testing.TB, name string, opt model.LoadOptions) *model.Model {
	t.Helper()
	dir, err := checkpoint.OpenDir(filepath.Join("testdata", name))
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

// goldenFile is what a script of scripts/goldens wrote for a checkpoint.
type goldenFile struct{ *golden.File }

func openGolden(t testing.TB, name string) goldenFile {
	t.Helper()
	return goldenFile{golden.Open(t, filepath.Join("testdata", name, "golden.safetensors"))}
}

func (g goldenFile) input(batch string) *model.Input {
	return &model.Input{IDs: g.Ints(batch + ".ids"), Types: g.Ints(batch + ".types"), Offsets: g.Ints(batch + ".offsets")}
}

func (g goldenFile) labels(batch string) []float32 { return g.Floats(batch + ".labels") }

// grad returns a parameter's gradient; zeros for an expert that saw no token, for
// which PyTorch has none.
func (g goldenFile) grad(p *nn.Param) []float32 {
	if _, ok := g.Tensor("grad." + p.Name); !ok && strings.Contains(p.Name, "expert_") {
		return make([]float32, len(p.Grad()))
	}
	return g.Floats("grad." + p.Name)
}

// stored returns a parameter's values or gradient as its checkpoint lays them out.
func stored(p *nn.Param, v []float32) []float32 {
	if p.Transposed {
		return model.Transpose(v, p.Shape[1], p.Shape[0])
	}
	return v
}

// TestForward checks hidden states and logits within the 1e-4 that the project
// promises, with and without the last layer's shortcut.
func TestForward(t *testing.T) {
	for _, name := range goldens {
		t.Run(name, func(t *testing.T) {
			from := name
			if name == "bert-sharded" {
				from = "bert-regression" // the same model in several files
			}
			g := openGolden(t, from)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			in := g.input("a")
			if err := m.Check(in); err != nil {
				t.Fatal(err)
			}
			tape.Reset(0)
			out := &model.Output{AllTokens: true, KeepHidden: true}
			m.ForwardAll(tape, in, out)
			for i, h := range out.Hidden {
				golden.Near(t, fmt.Sprintf("hidden state %d", i), h.Data, g.Floats("hidden."+strconv.Itoa(i)), 1e-4)
			}
			if len(out.Hidden) != m.Depth()+1 {
				t.Errorf("%d hidden states for %d layers", len(out.Hidden), m.Depth())
			}
			want := g.Floats("logits")
			golden.Near(t, "logits", out.Logits.Data, want, 1e-4)
			tape.Reset(0)
			golden.Near(t, "logits with one token of a sequence in the last layer", m.Forward(tape, in).Data, want, 1e-4)
		})
	}
}

// TestGradients checks every parameter's gradient within the promised 1e-3 of
// its norm.
func TestGradients(t *testing.T) {
	for _, name := range goldens {
		if name == "bert-sharded" || name == "bert-f16" || name == "bert-bf16" {
			continue // no gradients in these goldens
		}
		for _, all := range []bool{false, true} {
			t.Run(name+"/"+strconv.FormatBool(all), func(t *testing.T) {
				g := openGolden(t, name)
				m := load(t, name, model.LoadOptions{})
				pool := kernel.NewPool(2)
				defer pool.Close()
				tape := nn.NewTape(pool)
				tape.Train = true
				kind := nn.CrossEntropy
				if m.Config.Head == model.Regression {
					kind = nn.SquaredError
				}
				// Twice, so that what a step leaves behind would be seen.
				for step := range 2 {
					tape.Reset(step)
					m.ZeroGrad()
					out := &model.Output{AllTokens: all}
					m.ForwardAll(tape, g.input("a"), out)
					loss := tape.Loss(kind, out.Logits, g.labels("a"))
					want := float64(g.Floats("loss")[0])
					golden.NearValue(t, "loss", loss, want, 1e-5*max(1, want))
					tape.Backward()
				}
				for _, p := range m.Params {
					p.Weight.SettleGrad()
					want := g.grad(p)
					// A key's bias moves every score of a query alike: its
					// gradient is zero but for rounding.
					if golden.Norm(want) < 1e-6 {
						golden.Near(t, p.Name+": gradient", stored(p, p.Grad()), want, 1e-5)
						continue
					}
					golden.NearNorm(t, p.Name+": gradient", stored(p, p.Grad()), want, 1e-3)
				}
			})
		}
	}
}
