package model_test

import (
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// TestRecompute: layers that are run again give the same loss, gradients and counts of the
// routers to the last bit, the routers' losses and noise included, and families whose
// layers are more than that are refused.
func TestRecompute(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for _, name := range append([]string{"bert-fused", "gpt2-options", "llama-3", "gemma2", "gemma3"}, mixtures...) {
		m := load(t, name, model.LoadOptions{})
		m.Config.Mixture.Jitter, m.Config.Mixture.JitterExperts = 0.1, name == "mixtral"
		m.RouterLosses = m.Config.Mixture.BalanceLoss > 0
		in := &model.Input{IDs: []int32{5, 6, 7, 8, 9, 10, 11, 3, 4}, Offsets: []int32{0, 7, 9}}
		labels, kind := []float32{0, 1}, nn.CrossEntropy
		if m.Config.Head == model.LanguageModel {
			in.Targets = []int32{6, 7, 8, 9, 10, 11, -1, 4, -1}
		}
		tape := nn.NewTape(pool)
		tape.Train = true
		run := func() (loss float64, grads [][]float32) {
			tape.Reset(3)
			m.ZeroGrad()
			m.ClearUsage()
			loss = m.Loss(tape, kind, in, labels)
			tape.Backward()
			for _, p := range m.Params {
				grads = append(grads, slices.Clone(p.Grad()))
			}
			return loss, grads
		}
		wantLoss, want := run()
		seen := usage(m)
		if err := m.Recompute(true); err != nil {
			t.Fatal(err)
		}
		loss, got := run()
		golden.NearValue(t, name+": loss", loss, wantLoss, 0)
		if again := usage(m); !slices.Equal(again, seen) {
			t.Errorf("%s: experts saw %v tokens, want %v", name, again, seen)
		}
		for i, p := range m.Params {
			golden.Near(t, name+": "+p.Name, got[i], want[i], 0)
		}
		if err := m.Recompute(false); err != nil {
			t.Fatal(err)
		}
		loss, got = run()
		golden.NearValue(t, name+": loss, kept again", loss, wantLoss, 0)
		for i, p := range m.Params {
			golden.Near(t, name+": "+p.Name+", kept again", got[i], want[i], 0)
		}
	}
	for _, name := range []string{"t5", "switch"} {
		if err := load(t, name, model.LoadOptions{}).Recompute(true); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// usage lists the tokens that all experts of a model have seen.
func usage(m *model.Model) (seen []int64) {
	for _, u := range m.Usage() {
		seen = append(seen, u.Tokens...)
	}
	return seen
}
