package nn

import (
	"fmt"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestDistill compares loss and gradient with PyTorch's (scripts/goldens/distill.py).
func TestDistill(t *testing.T) {
	var cases []struct {
		Classes                       int
		Weight, Temperature, Loss     float64
		Labels, Logits, Teacher, Grad []float32
	}
	golden.JSON(t, "testdata/distill/losses.json", &cases)
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
			name := fmt.Sprintf("%d classes, weight %g, temperature %g: ", c.Classes, c.Weight, c.Temperature)
			golden.NearValue(t, name+"loss", loss, c.Loss, 1e-5*c.Loss)
			if train {
				golden.Near(t, name+"gradient", logits.Grad, c.Grad, 1e-6)
			} else if logits.Grad != nil {
				t.Error(name + "a gradient without training")
			}
		}
	}
}
