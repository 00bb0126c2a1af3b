package train

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// prompted makes n texts of the tiny models' vocabulary behind prompts, of which
// nothing is predicted.
func prompted(n int, seed uint64) *task.Encoded {
	rng := rand.New(rand.NewPCG(seed, 2))
	e := &task.Encoded{Offsets: []int{0}}
	for range n {
		prompt, text := 1+rng.IntN(5), 1+rng.IntN(12)
		for i := range prompt + text {
			id := int32(rng.IntN(90))
			e.IDs = append(e.IDs, id)
			if i >= prompt {
				e.Targets = append(e.Targets, (id+7)%90)
			} else {
				e.Targets = append(e.Targets, -1)
			}
		}
		e.Offsets = append(e.Offsets, len(e.IDs))
	}
	return e
}

// textRunner trains a tiny fused GPT-2 with dropout.
func textRunner(t testing.TB, dir string, workers int) *Runner {
	spec, err := task.Lookup("webnlg")
	if err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(workers)
	t.Cleanup(pool.Close)
	return &Runner{
		Config: Config{Epochs: 2, Batch: 8, LR: []float64{1e-3}, Schedule: Linear, Optimizer: PaperOptimizer, Seed: 3, EvalEvery: 4, SnapshotEvery: 3},
		Data:   Data{Spec: spec, Train: prompted(50, 1), Dev: prompted(30, 2)},
		Pool:   pool, Dir: dir,
		Load: func() (*model.Model, error) {
			m := load(t, "gpt2-fused", model.LoadOptions{})
			m.Config.Dropout = model.Dropout{EmbedDrop: 0.1, HiddenDrop: 0.1, AttnDrop: 0.1}
			return m, nil
		},
	}
}

// TestTextRuns trains a language model with 1, 2 and 3 workers and in two goes:
// the same bytes. The best weights are those of the lowest perplexity.
func TestTextRuns(t *testing.T) {
	r := textRunner(t, t.TempDir(), 2)
	lowest := math.Inf(1)
	r.Observer.Point = func(p Point) {
		for _, m := range p.Metrics {
			if m.Name == task.Perplexity {
				lowest = min(lowest, m.Value)
			}
		}
	}
	m, result, err := r.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if result.Metrics[0].Name != task.Perplexity || result.Metrics[0].Value != lowest {
		t.Errorf("kept %v, the lowest perplexity was %g", result.Metrics, lowest)
	}
	got, err := NewEvaluator(r.Pool, kernel.FP32).Score(context.Background(), m, r.Data.Spec, r.Data.Dev, nil)
	if err != nil || got[0] != result.Metrics[0] {
		t.Errorf("the model returned scores %v (%v), want %v", got, err, result.Metrics)
	}
	want := outcome(t, r, m, result)
	for _, workers := range []int{1, 3} {
		same(t, "another number of workers", run(t, textRunner(t, t.TempDir(), workers)), want)
	}
	recomputed := textRunner(t, t.TempDir(), 2)
	recomputed.Config.Recompute = true
	same(t, "layers that are run again", run(t, recomputed), want)
	stopped := textRunner(t, t.TempDir(), 2)
	ctx, cancel := context.WithCancel(context.Background())
	stopAt(stopped, "step", 8, cancel)
	if _, _, err := stopped.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	again := textRunner(t, stopped.Dir, 1)
	again.Resume = true
	same(t, "a run in two goes", run(t, again), want)
}

// TestLikelihood checks that the evaluator's batches give the likelihood of each
// text by itself.
func TestLikelihood(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	m := load(t, "gpt2", model.LoadOptions{})
	data := prompted(40, 4)
	got, targets, err := NewEvaluator(pool, kernel.FP32).Likelihood(context.Background(), m, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	tape := nn.NewTape(pool)
	var want float64
	count := 0
	for i := range data.Len() {
		a, b := data.Offsets[i], data.Offsets[i+1]
		in := &model.Input{IDs: data.IDs[a:b], Targets: data.Targets[a:b], Offsets: []int32{0, int32(b - a)}}
		tape.Reset(0)
		want += m.Loss(tape, nn.KernelFunction, in, nil)
		for _, id := range in.Targets {
			if id >= 0 {
				count++
			}
		}
	}
	if !(math.Abs(got-want) <= 1e-6*math.Abs(want)) || targets != count {
		t.Errorf("log-likelihood %g of %d tokens, want %g of %d", got, targets, want, count)
	}
}

// TestTextAllocates checks that a steady step and a steady evaluation batch of
// language models allocate nothing.
func TestTextAllocates(t *testing.T) {
	for _, name := range []string{"gpt2", "gpt2-fused", "gpt2-options"} {
		pool := kernel.NewPool(2)
		defer pool.Close()
		m := load(t, name, model.LoadOptions{})
		m.Config.Dropout = model.Dropout{EmbedDrop: 0.1, HiddenDrop: 0.1, AttnDrop: 0.1}
		s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
		data := prompted(32, 1)
		var batch task.Batch
		order := task.Shuffle(0, 0, data.Len())
		step := func() {
			data.Fill(&batch, order)
			s.Step(&batch, 1e-5)
		}
		for range 3 {
			step()
		}
		if n := testing.AllocsPerRun(20, step); n != 0 {
			t.Errorf("%s: a training step allocates %g times", name, n)
		}
		l := newLane(pool, kernel.FP32)
		evaluate := func() {
			l.fill(data, order)
			m.Loss(l.tape, nn.KernelFunction, &l.in, nil)
		}
		evaluate()
		if n := testing.AllocsPerRun(20, evaluate); n != 0 {
			t.Errorf("%s: an evaluation batch allocates %g times", name, n)
		}
	}
}
