// Package bench measures the engine beside its peers; this file holds the
// benchmark that `make profile` profiles.
package bench

import (
	"math/rand/v2"
	"os"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// BenchmarkStep is one fine-tuning step of MiniLM on 32 sequences with the
// lengths of SST-2 (mean 13.3 tokens).
func BenchmarkStep(b *testing.B) {
	path := os.Getenv("MLPFUSION_MINILM")
	if path == "" {
		b.Skip("MLPFUSION_MINILM is not set")
	}
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{NewHead: true})
	if err != nil {
		b.Fatal(err)
	}
	pool := kernel.NewPool(0)
	defer pool.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	batches := make([]task.Batch, 8)
	for i := range batches {
		t := &batches[i]
		t.Offsets = []int32{0}
		for range 32 {
			for range min(60, 4+int(9.3*rng.ExpFloat64())) {
				t.IDs = append(t.IDs, int32(rng.IntN(m.Config.Vocab)))
			}
			t.Offsets = append(t.Offsets, int32(len(t.IDs)))
			t.Labels = append(t.Labels, float32(rng.IntN(2)))
		}
	}
	s := train.NewStepper(pool, m, train.PaperOptimizer, kernel.FP32, 0)
	tokens := 0
	for i := 0; b.Loop(); i++ {
		t := &batches[i%len(batches)]
		s.Step(t, 1e-5)
		tokens += t.Tokens()
	}
	b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
}
