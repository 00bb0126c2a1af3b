package convert

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/python"
)

// TestWithCode: the weights byte for byte, int8 ones as the float32 they stand for, and
// the same logits.
func TestWithCode(t *testing.T) {
	for _, store := range []string{"", "int8"} {
		t.Run("store "+store, func(t *testing.T) {
			small, out := filepath.Join(t.TempDir(), "small"), filepath.Join(t.TempDir(), "code")
			fuse(t, filepath.Join(testdata, "bert"), small, FuseOptions{Plan: Plan{Layers: "all", Width: 20}, Store: store})
			src := openDir(t, small)
			if _, err := WithCode(context.Background(), src, out, false); err != nil {
				t.Fatal(err)
			}
			was, is := files(t, small), files(t, out)
			if store == "" && !bytes.Equal(was["model.safetensors"], is["model.safetensors"]) {
				t.Error("expected the weights' bytes, found others")
			}
			if !bytes.Equal(is[python.ModelingFile], python.Modeling) {
				t.Errorf("%s: expected the package's", python.ModelingFile)
			}
			golden.Near(t, "logits", forward(t, out), forward(t, small), 0)
		})
	}
}
