package kernel

import (
	"slices"
	"testing"
)

// busy returns which share of the workers' time a product's blocks fill, if a block takes
// what its plan says: each worker takes the next block as soon as it is free.
func (g *gemmJob) busy(workers int) float64 {
	free := make([]float64, workers) // when
	var all float64
	for i := range g.tasks() {
		i0, j0 := i/g.strips*g.rows, i%g.strips*g.cols
		cost := g.cost(min(g.rows, g.m-i0), min(g.cols, g.n-j0))
		all += cost
		w := slices.Index(free, slices.Min(free))
		free[w] += cost
	}
	return all / (float64(workers) * slices.Max(free))
}

// TestBalance: on machines of 2 to 64 workers, which are none of ours, the products of a
// training step keep them at work. A block costs what the plan reckons; nothing is timed.
func TestBalance(t *testing.T) {
	each(t, tables{&gemms[FP32]}, func(t *testing.T) {
		if gemms[FP32].use == nil {
			t.Skip("the portable product is not planned")
		}
		for _, c := range []struct{ m, n, k int }{
			{425, 384, 1536}, {425, 1536, 384}, // MiniLM, 32 sentences
			{4096, 768, 3072}, {4096, 3072, 768}, {768, 3072, 4096}, // BERT-base, 32 × 128, and a weight's gradient
			{2048, 576, 1536}, {512, 49152, 576}, // SmolLM2, and its vocabulary
		} {
			for workers := 2; workers <= 64; workers *= 2 {
				p := &Pool{workers: workers}
				g := gemmJob{prec: FP32, m: c.m, n: c.n, k: c.k, pool: p}
				g.plan(workers)
				share := g.busy(workers)
				t.Logf("%d×%d×%d, %d workers: %d blocks of %d×%d, at work %.0f %% of the time", c.m, c.n, c.k, workers, g.tasks(), g.rows, g.cols, 100*share)
				if !(share >= 0.8) {
					t.Errorf("%d×%d×%d, %d workers: at work %.0f %% of the time", c.m, c.n, c.k, workers, 100*share)
				}
			}
		}
	})
}
