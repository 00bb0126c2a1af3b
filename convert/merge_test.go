package convert

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
)

func openAdapter(t *testing.T, name string) *checkpoint.Adapter {
	t.Helper()
	a, err := checkpoint.OpenAdapter(filepath.Join(testdata, "lora-"+name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// TestMergeAdapter: a merged checkpoint holds, to the last bit, what a model that is loaded with
// the adapter has.
func TestMergeAdapter(t *testing.T) {
	pool := kernel.NewPool(1)
	defer pool.Close()
	for _, name := range []string{"bert", "gpt2-classifier", "llama-3", "phi3", "switch"} {
		a, out := openAdapter(t, name), filepath.Join(t.TempDir(), "merged")
		src := openDir(t, filepath.Join(testdata, name))
		r, err := MergeAdapter(context.Background(), pool, src, a, out, false)
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := model.Load(src, model.LoadOptions{Adapter: a, Merge: true})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := model.Load(openDir(t, out), model.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		before, _, err := model.Load(src, model.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		changed := 0
		for i, p := range got.Params {
			golden.Near(t, name+": "+p.Name, p.Data, want.Params[i].Data, 0)
			if !slices.Equal(p.Data, before.Params[i].Data) {
				changed++
			}
		}
		if changed != r.Layers || r.Whole > 0 != (name == "bert" || name == "gpt2-classifier") {
			t.Errorf("%s: %d tensors changed, of %d layers and %d tensors", name, changed, r.Layers, r.Whole)
		}
	}
	src := openDir(t, filepath.Join(testdata, "roberta"))
	if _, err := MergeAdapter(context.Background(), pool, src, openAdapter(t, "bert"), filepath.Join(t.TempDir(), "x"), false); err == nil || !strings.Contains(err.Error(), "expected an adapter of this model") {
		t.Errorf("another model's adapter: %v", err)
	}
}
