package nn

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"mlpfusion/kernel"
)

// TestDistill compares loss and gradient with PyTorch's (scripts/goldens/distill.py).
func TestDistill(t *testing.T) {
	text, err := os.ReadFile("testdata/distill/losses.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Classes                       int
		Weight, Temperature, Loss     float64
		Labels, Logits, Teacher, Grad []float32
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	pool := kernel.NewPool(1)
	defer pool.Close()
	tape := NewTape(pool)
	for _, c := range cases {
		kind := CrossEntropy
		if c.Classes == 1 {
			kind = SquaredError
		}
		for _, train := range []bool{true, false} {
			tape.Train = train
			tape.Reset(0)
			rows := len(c.Labels)
			logits, teacher := tape.New(rows, c.Classes), tape.New(rows, c.Classes)
			copy(logits.Data, c.Logits)
			copy(teacher.Data, c.Teacher)
			loss := tape.Distill(kind, logits, teacher, c.Labels, c.Weight, c.Temperature)
			if math.Abs(loss-c.Loss) > 1e-5*c.Loss {
				t.Errorf("%d classes, weight %g, temperature %g: loss %g, want %g", c.Classes, c.Weight, c.Temperature, loss, c.Loss)
			}
			for i, g := range logits.Grad {
				if math.Abs(float64(g-c.Grad[i])) > 1e-6 {
					t.Errorf("%d classes, weight %g, temperature %g: gradient %d is %g, want %g", c.Classes, c.Weight, c.Temperature, i, g, c.Grad[i])
				}
			}
			if train != (logits.Grad != nil) {
				t.Error("a gradient without training, or none with it")
			}
		}
	}
}
