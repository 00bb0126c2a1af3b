package shrink

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/internal/golden"
	"mlpfusion/task"
)

// TestWidths: a size gives the widest blocks with which the model has no more than that
// share of its parameters; the widths to be searched become narrower.
func TestWidths(t *testing.T) {
	dir, err := checkpoint.OpenDir("../model/testdata/bert")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c, err := convert.Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	parameters := func(width int) int { // a unit has two vectors and a bias
		return c.Parameters - len(c.Blocks)*(c.Blocks[0].Width-width)*(2*c.Hidden+1)
	}
	for _, size := range []float64{0.65, 0.8, 0.9} {
		widths, err := Goal{Size: size}.widths(dir)
		if err != nil || len(widths) != 1 {
			t.Fatalf("size %g: widths %v, %v", size, widths, err)
		}
		w, limit := widths[0], int(math.Floor(size*float64(c.Parameters)))
		// MLPs' output biases stay, which the choice counts with the units.
		if spare := len(c.Blocks) * c.Hidden; parameters(w) > limit || parameters(w+1) <= limit-spare {
			t.Errorf("size %g: width %d has %d parameters, the next %d; at most %d are asked for", size, w, parameters(w), parameters(w+1), limit)
		}
	}
	if _, err := (Goal{Size: 0.1}).widths(dir); err == nil || !strings.Contains(err.Error(), "left without MLPs") {
		t.Errorf("size 0.1 gave %v", err)
	}
	widths, err := Goal{Within: 1}.widths(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range widths {
		if w < 1 || i == 0 && w >= c.Blocks[0].Width || i > 0 && w >= widths[i-1] {
			t.Errorf("widths %v", widths)
		}
	}
}

// TestLost: of accuracies points below the original's, of perplexities percent above.
func TestLost(t *testing.T) {
	made := func(metric string, value float64, width int) *Made {
		return &Made{Width: width, Metrics: []task.Metric{{Name: metric, Value: value}}}
	}
	for _, c := range []struct {
		original, small *Made
		want            float64
	}{
		{made(task.Accuracy, 0.9, 8), made(task.Accuracy, 0.88, 4), 2},
		{made(task.Accuracy, 0.9, 8), made(task.Accuracy, 0.95, 4), -5},
		{made(task.Perplexity, 20, 8), made(task.Perplexity, 21, 4), 5},
	} {
		golden.NearValue(t, fmt.Sprint("lost from ", c.original.Metrics, " to ", c.small.Metrics), lost(c.original, c.small), c.want, 1e-9)
	}
	r := &Runner{Name: "m", Goal: Goal{Within: 1}, work: "w"}
	err := r.missed(made(task.Accuracy, 0.9, 8), []*Made{made(task.Accuracy, 0.7, 2), made(task.Accuracy, 0.87, 6), made(task.Accuracy, 0.8, 4)})
	for _, want := range []string{"within 1 points of the original's 0.9000", "found 0.8700 with 6 units", "--within 3.1 takes that one", "w keeps"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}
