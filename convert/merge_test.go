package convert

import (
	"context"
	"errors"
	"math/rand/v2"
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

// newAdapter makes an adapter of random numbers for a checkpoint.
func newAdapter(t *testing.T, name string) (dir string) {
	t.Helper()
	src := openDir(t, filepath.Join(testdata, name))
	opt := model.LoadOptions{Seed: 3}
	var err error
	if opt.Adapter, err = model.NewAdapter(src, opt, name, model.AdapterOptions{Rank: 3, Alpha: 6, Targets: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	m, _, err := model.Load(src, opt)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for _, p := range m.Params {
		for i := range p.Data {
			p.Data[i] = float32(0.3 * rng.NormFloat64())
		}
	}
	dir = filepath.Join(t.TempDir(), "adapter")
	o, err := checkpoint.CreateOutput(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Abort()
	if err := errors.Join(m.SaveAdapter(o, src.Config), o.Commit()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestExportAdapter: an exported model with its exported adapter computes what the fused
// one with its own does, which Export itself compares; without either they differ.
func TestExportAdapter(t *testing.T) {
	for _, name := range []string{"bert-fused", "gpt2-fused", "phi3", "t5-fused"} {
		a, err := checkpoint.OpenAdapter(newAdapter(t, name))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		in := *sample
		if strings.HasPrefix(name, "t5") {
			in.DecoderIDs, in.DecoderOffsets = []int32{0, 5, 0, 9, 11, 0}, []int32{0, 2, 5, 6}
		}
		src, out := openDir(t, filepath.Join(testdata, name)), filepath.Join(t.TempDir(), "plain")
		opt := ExportOptions{Pool: newPool(t), Sample: &in, Pad: true, Adapter: a}
		r, err := Export(context.Background(), src, out, opt)
		if err != nil {
			t.Fatal(err)
		}
		if !(r.Difference < 1e-4) {
			t.Errorf("%s: logits differ by %g", name, r.Difference)
		}
		if b, err := checkpoint.OpenAdapter(AdapterOf(out)); err != nil || b.Base != out {
			t.Errorf("%s: %v", name, err)
		} else {
			b.Close()
		}
		plain, err := logits(context.Background(), openDir(t, out), nil, opt)
		if err != nil {
			t.Fatal(err)
		}
		with, err := logits(context.Background(), src, a, opt)
		if err != nil {
			t.Fatal(err)
		}
		if !(golden.Largest(plain, with) > 0.1) {
			t.Errorf("%s: the adapter makes no difference", name)
		}
	}
}
