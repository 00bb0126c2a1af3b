package nn

import (
	"encoding/json"
	"os"
	"testing"

	"mlpfusion/internal/golden"
)

// openOps opens the golden of an operation and reads which cases it holds
// (scripts/goldens/ops.py).
func openOps[T any](t *testing.T, name string) (*golden.File, []T) {
	t.Helper()
	text, err := os.ReadFile("testdata/ops/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []T
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
		t.Fatal(name, len(cases), err)
	}
	return golden.Open(t, "testdata/ops/"+name+".safetensors"), cases
}

// doubles returns x in float64.
func doubles(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
