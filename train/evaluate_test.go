package train

import (
	"context"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// TestLogitsOfNow checks that evaluation, which packs the weights, gives what a
// forward pass does, to the last bit, and again after they have changed.
func TestLogitsOfNow(t *testing.T) {
	m := load(t, "bert", model.LoadOptions{})
	b := batch(openGolden(t, "bert"), "a")
	data := &task.Encoded{IDs: b.IDs, Types: b.Types, Labels: b.Labels}
	for _, o := range b.Offsets {
		data.Offsets = append(data.Offsets, int(o))
	}
	pool := kernel.NewPool(2)
	defer pool.Close()
	e, in, tape := NewEvaluator(pool, kernel.FP32), InputOf(b), nn.NewTape(pool)
	for range 2 {
		tape.Reset(0)
		want := slices.Clone(m.Forward(tape, &in).Data)
		got, err := e.Logits(context.Background(), m, data, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("logits %v, want %v", got, want)
		}
		for _, p := range m.Params {
			p.Data[0] += 0.5
		}
	}
}

// TestLogitsByWorkers checks that many batches, which workers evaluate side by side,
// give what forward passes over one row at a time do, to the last bit, of whatever
// family and however many workers.
func TestLogitsByWorkers(t *testing.T) {
	for _, name := range []string{"bert", "bert-fused", "bert-svd", "distilbert", "roberta", "gpt2-classifier", "t5-label", "switch-label", "switch-fused"} {
		m := load(t, name, model.LoadOptions{})
		data := words(500, 3)
		want := make([]float32, 0, len(m.Config.Labels)*data.Len())
		one := newLane(kernel.NewPool(1), kernel.FP32)
		for i := range data.Len() {
			want = append(want, one.forward(m, data, []int32{int32(i)}).Data...)
		}
		for _, workers := range []int{1, 2, 5} {
			pool := kernel.NewPool(workers)
			defer pool.Close()
			done := 0
			got, err := NewEvaluator(pool, kernel.FP32).Logits(context.Background(), m, data, func(n, total int) {
				if n <= done || total != data.Len() {
					t.Errorf("%s, %d workers: progress %d of %d after %d", name, workers, n, total, done)
				}
				done = n
			})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %d workers: logits differ from those of one row at a time", name, workers)
			}
			if done != data.Len() {
				t.Errorf("%s, %d workers: progress ended at %d", name, workers, done)
			}
		}
	}
}

// TestByLoss: the dev set's loss is that of the golden batch, and it alone then chooses.
func TestByLoss(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for name, of := range map[string]string{"bert": "sst2", "bert-regression": "stsb", "gpt2": "lm"} {
		spec, err := task.Lookup(of)
		if err != nil {
			t.Fatal(err)
		}
		spec.ByLoss()
		g := openGolden(t, name)
		b := batch(g, "a")
		data := &task.Encoded{IDs: b.IDs, Types: b.Types, Labels: b.Labels, Targets: b.Targets, Offsets: ints(b.Offsets)}
		metrics, err := NewEvaluator(pool, kernel.FP32).Score(context.Background(), load(t, name, model.LoadOptions{}), spec, data, nil)
		if err != nil {
			t.Fatal(err)
		}
		last := metrics[len(metrics)-1]
		if again, _ := task.Lookup(of); last.Name != task.Loss || (Labels{}).main(spec) != task.Loss || (Labels{}).main(again) == task.Loss {
			t.Errorf("%s: scored by %s, %v", name, (Labels{}).main(spec), metrics)
		}
		golden.NearValue(t, name, last.Value, float64(g.Floats("loss")[0]), 1e-4)
	}
}
