package train

import (
	"context"
	"slices"
	"testing"

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
