// Package bench measures the engine beside its peers; this file holds the
// benchmark that `make profile` profiles.
package bench

import (
	"context"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"testing"
	"time"

	"mlpfusion/bench/internal/shapes"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

var profile = flag.String("profile", "", "write a CPU profile of BenchmarkStep to `FILE`, without its first step")

// BenchmarkStep is one fine-tuning step of MiniLM, or of a model of BERT-base's or
// switch-base-8's shape (with 4 + 4 layers), on 32 sequences, Switch on 64, with the
// lengths of SST-2 (mean 13.3 tokens) or of 128 tokens each (dense).
func BenchmarkStep(b *testing.B) {
	for _, shape := range []string{"minilm", "bert-base", "switch"} {
		for _, mode := range []string{"sst2", "dense"} {
			for _, prec := range []string{"fp32", "bf16"} {
				b.Run(shape+"/"+mode+"/"+prec, func(b *testing.B) { benchmarkStep(b, shape, mode, prec) })
			}
		}
	}
}

// BenchmarkEvaluate is the evaluation of 872 sequences with the lengths of SST-2's
// dev set (mean 25 tokens) by MiniLM.
func BenchmarkEvaluate(b *testing.B) {
	for _, prec := range []string{"fp32", "bf16"} {
		b.Run(prec, func(b *testing.B) {
			m := newModel(b, "minilm")
			pool := kernel.NewPool(0)
			defer pool.Close()
			rng := rand.New(rand.NewPCG(1, 2))
			data := &task.Encoded{Offsets: []int{0}, Labels: make([]float32, 872)}
			for range data.Labels {
				for range 4 + rng.IntN(43) {
					data.IDs = append(data.IDs, int32(rng.IntN(m.Config.Vocab)))
				}
				data.Offsets = append(data.Offsets, len(data.IDs))
			}
			data.Types = make([]int32, len(data.IDs))
			e := train.NewEvaluator(pool, precision(prec))
			for b.Loop() {
				if _, err := e.Logits(context.Background(), m, data, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(872*float64(b.N)/b.Elapsed().Seconds(), "sentences/s")
		})
	}
}

func precision(name string) kernel.Precision {
	if name == "bf16" {
		return kernel.BF16
	}
	return kernel.FP32
}

func benchmarkStep(b *testing.B, shape, mode, prec string) {
	m := newModel(b, shape)
	pool := kernel.NewPool(0)
	defer pool.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	batches := make([]task.Batch, 8)
	for i := range batches {
		t := &batches[i]
		t.Offsets = []int32{0}
		sequences := 32
		if shape == "switch" {
			sequences = 64
		}
		for range sequences {
			n := 128
			if mode == "sst2" {
				n = min(60, 4+int(9.3*rng.ExpFloat64()))
			}
			for range n {
				t.IDs = append(t.IDs, int32(rng.IntN(m.Config.Vocab)))
			}
			t.Offsets = append(t.Offsets, int32(len(t.IDs)))
			t.Labels = append(t.Labels, float32(rng.IntN(2)))
		}
	}
	s := train.NewStepper(pool, m, train.PaperOptimizer, precision(prec), 0)
	s.Step(&batches[len(batches)-1], 1e-5) // takes the memory, which looks like work of AdamW's
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			b.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	tokens, fastest := 0, time.Duration(math.MaxInt64)
	for i := 0; b.Loop(); i++ {
		t := &batches[i%len(batches)]
		start := time.Now()
		s.Step(t, 1e-5)
		fastest = min(fastest, time.Since(start)/time.Duration(t.Tokens()))
		tokens += t.Tokens()
	}
	b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
	b.ReportMetric(1/fastest.Seconds(), "most-tokens/s")
}

// newModel makes the model of the shape's name; see package shapes.
func newModel(b *testing.B, shape string) *model.Model {
	path := os.Getenv("MLPFUSION_MINILM")
	if path == "" {
		b.Skip("MLPFUSION_MINILM is not set")
	}
	m, err := shapes.New(shape, path, 0, false)
	if err != nil {
		b.Fatal(err)
	}
	return m
}
