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
	"mlpfusion/nn"
)

// adapted are the checkpoints that scripts/goldens/lora.py gives an adapter by PEFT.
var adapted = []string{"bert", "roberta", "gpt2", "gpt2-classifier", "llama-3", "gemma3", "phi3", "t5-gated", "switch"}

func openAdapter(t testing.TB, dir string) *checkpoint.Adapter {
	t.Helper()
	a, err := checkpoint.OpenAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// TestAdapters follows PEFT: the loss of a model with an adapter, its gradients, ten
// steps, the loss once the adapter is merged, and the adapter as it is saved again.
func TestAdapters(t *testing.T) {
	for _, name := range adapted {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(testdata, "lora-"+name)
			g, a := openGolden(t, "lora-"+name), openAdapter(t, dir)
			pool := kernel.NewPool(2)
			defer pool.Close()
			first, second := batch(g, "a"), batch(g, "b")
			in := InputOf(first)
			tape := nn.NewTape(pool)
			for _, merge := range []bool{false, true} {
				m := load(t, name, model.LoadOptions{Adapter: a, Merge: merge})
				tape.Reset(0)
				want := float64(g.Floats("loss")[0])
				golden.NearValue(t, fmt.Sprint("loss, merged ", merge), m.Loss(tape, LossOf(m), &in, first.Labels), want, 1e-5*max(1, want))
			}

			m := load(t, name, model.LoadOptions{Adapter: a})
			saved := saveAdapter(t, m, name)
			want := openTensors(t, filepath.Join(dir, "adapter_model.safetensors"))
			if got := openTensors(t, filepath.Join(saved, "adapter_model.safetensors")); !slices.Equal(got.Names(), want.Names()) {
				t.Errorf("saved as %v, PEFT's names are %v", got.Names(), want.Names())
			} else {
				for _, n := range got.Names() {
					golden.Near(t, n, got.Floats(n), want.Floats(n), 0)
				}
			}

			s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
			losses, norms := g.Floats("losses"), g.Floats("norms")
			for i := range 10 {
				b := first
				if i%2 == 1 {
					b = second
				}
				loss := s.Step(b, 1e-3)
				golden.NearValue(t, fmt.Sprintf("step %d: loss", i), loss, float64(losses[i]), 1e-4)
				golden.NearValue(t, fmt.Sprintf("step %d: gradient norm", i), s.Optimizer.Norm(), float64(norms[i]), 1e-4*float64(norms[i]))
				if i > 0 {
					continue
				}
				for _, p := range m.Params {
					if _, ok := g.Tensor("grad." + p.Name); !ok && strings.Contains(p.Name, "expert_") {
						continue // it saw no token
					}
					golden.NearNorm(t, p.Name+": gradient", p.Grad(), g.Floats("grad."+p.Name), 1e-3)
				}
			}
			for _, p := range m.Params {
				golden.Near(t, p.Name+" after ten steps", p.Data, g.Floats("final."+p.Name), 2e-5)
			}
			checked := 0
			for _, n := range g.Names() {
				if strings.HasPrefix(n, "final.") {
					checked++
				}
			}
			if checked != len(m.Params) {
				t.Errorf("%d parameters are trained, by PEFT %d", len(m.Params), checked)
			}
		})
	}
}

func openTensors(t testing.TB, path string) *golden.File {
	t.Helper()
	return golden.Open(t, path)
}

// saveAdapter saves the adapter of a model whose base is a checkpoint of the tests.
func saveAdapter(t testing.TB, m *model.Model, base string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "adapter")
	o, err := checkpoint.CreateOutput(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Abort()
	config, err := checkpoint.ReadConfig(filepath.Join(testdata, base, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SaveAdapter(o, config); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	return dir
}
