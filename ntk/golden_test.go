package ntk_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/ntk"
)

var goldens = []string{"bert", "bert-fused", "bert-svd", "bert-regression", "roberta", "gpt2"}

func load(t testing.TB, path string) *model.Model {
	t.Helper()
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{NewHead: true})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tiny(t testing.TB, name string) *model.Model {
	t.Helper()
	return load(t, filepath.Join("..", "model", "testdata", name))
}

// goldenFile is what scripts/goldens/ntk.py wrote for a checkpoint.
type goldenFile struct{ *golden.File }

func openGolden(t testing.TB, name string) goldenFile {
	t.Helper()
	return goldenFile{golden.Open(t, filepath.Join("testdata", "goldens", name+".safetensors"))}
}

func (g goldenFile) input() *model.Input {
	in := &model.Input{IDs: g.Ints("ids"), Types: g.Ints("types"), Offsets: g.Ints("offsets")}
	if _, ok := g.Tensor("targets"); ok {
		in.Targets = g.Ints("targets")
	}
	return in
}

// TestGolden checks both kernels of every block within the 1e-3 that the project
// promises, of the Frobenius norm. The golden's gradients are float64 and ours
// float32, so an entry whose value is as small as rounding may have another
// sign; of entries about a it moves K by 2a·1e-6 or so of their number, which is
// far below the promise. Where a gradient is exactly 0, as behind a ReLU, both
// are.
func TestGolden(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for _, name := range goldens {
		m, g := tiny(t, name), openGolden(t, name)
		for _, kind := range []ntk.Kind{ntk.Adam, ntk.SGD} {
			t.Run(fmt.Sprint(name, "/", kind), func(t *testing.T) {
				kernels, err := ntk.Compute(context.Background(), pool, m, g.input(), ntk.Options{Kind: kind, Blocks: ntk.All(m)})
				if err != nil {
					t.Fatal(err)
				}
				for i, k := range kernels {
					want := g.Floats(fmt.Sprintf("%v.%d", kind, i))
					golden.NearNorm(t, k.Block, k.Data, want, 1e-3)
					t.Logf("%s: off by %.1e of its norm", k.Block, golden.Relative(k.Data, want))
					if k.Block != m.Blocks[i].Name {
						t.Errorf("kernel %d is of %s, want %s", i, k.Block, m.Blocks[i].Name)
					}
				}
				alone, err := ntk.Compute(context.Background(), pool, m, g.input(), ntk.Options{Kind: kind})
				if err != nil {
					t.Fatal(err)
				}
				if len(alone) != 1 || !slices.Equal(alone[0].Data, kernels[0].Data) {
					t.Error("block 0 alone is not what it is among all")
				}
			})
		}
	}
}
