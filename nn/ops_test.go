package nn

import (
	"testing"

	"mlpfusion/internal/golden"
)

// openOps opens the golden of an operation and reads which cases it holds
// (scripts/goldens/ops.py).
func openOps[T any](t *testing.T, name string) (*golden.File, []T) {
	t.Helper()
	var cases []T
	golden.JSON(t, "testdata/ops/"+name+".json", &cases)
	return golden.Open(t, "testdata/ops/"+name+".safetensors"), cases
}
