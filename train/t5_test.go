package train

import (
	"slices"
	"strings"
	"testing"

	"mlpfusion/kernel"
	"mlpfusion/model"
)

// TestTextToText checks of T5 and Switch Transformers as language models, with
// dropout, jitter and the routers' losses, that a steady step allocates nothing
// and that two workers leave the bytes of one; and that frozen routers stay.
func TestTextToText(t *testing.T) {
	for _, name := range []string{"t5", "t5-gated", "switch"} {
		var first []float32
		for _, workers := range []int{1, 2} {
			g := openGolden(t, name)
			pool := kernel.NewPool(workers)
			defer pool.Close()
			m := load(t, name, model.LoadOptions{})
			m.Config.EmbedDrop, m.Config.HiddenDrop, m.Config.AttnDrop, m.Config.Mixture.Jitter = 0.1, 0.1, 0.1, 0.1
			m.RouterLosses = true
			s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 7)
			b := batch(g, "a")
			step := func() { s.Step(b, 1e-3) }
			for range 20 { // until the buffers fit however tokens are routed
				step()
			}
			if n := testing.AllocsPerRun(10, step); n != 0 {
				t.Errorf("%s: a training step allocates %g times", name, n)
			}
			var all []float32
			for _, p := range m.Params {
				all = append(all, p.Data...)
			}
			if workers == 1 {
				first = all
			} else if !slices.Equal(first, all) {
				t.Errorf("%s: two workers leave other parameters than one", name)
			}
		}
	}
}

// TestFrozenRouters checks that frozen routers stay as they are while the
// gradient still flows through them, and that only they stay.
func TestFrozenRouters(t *testing.T) {
	g := openGolden(t, "switch-label")
	pool := kernel.NewPool(2)
	defer pool.Close()
	m := load(t, "switch-label", model.LoadOptions{})
	m.FreezeRouters()
	before := map[string][]float32{}
	for _, p := range m.Params {
		before[p.Name] = slices.Clone(p.Data)
	}
	s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
	s.Step(batch(g, "a"), 1e-3)
	s.Optimizer.Flush()
	routers := 0
	for _, p := range m.Params {
		same := slices.Equal(before[p.Name], p.Data)
		if p.Weight.Frozen {
			routers++
		}
		if strings.HasPrefix(p.Name, "decoder") && strings.Contains(p.Name, "attention_bias") {
			continue // a lone token's attention does not depend on it
		}
		if same != p.Weight.Frozen && p.Weight.Reached() {
			t.Errorf("%s: stayed as it was: %t, frozen: %t", p.Name, same, p.Weight.Frozen)
		}
	}
	if routers != 8 { // weight and bias of four
		t.Errorf("%d tensors are frozen, want 8", routers)
	}
}
