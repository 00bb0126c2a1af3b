package ntk_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"mlpfusion/checkpoint"
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

// golden reads what scripts/goldens/ntk.py wrote for a checkpoint.
type golden struct {
	t testing.TB
	r *checkpoint.Reader
}

func openGolden(t testing.TB, name string) golden {
	t.Helper()
	r, err := checkpoint.Open(filepath.Join("testdata", "goldens", name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return golden{t, r}
}

func (g golden) floats(name string) []float32 {
	g.t.Helper()
	x, ok := g.r.Tensor(name)
	if !ok {
		g.t.Fatalf("golden has no %s", name)
	}
	v := make([]float32, x.Elements())
	if err := x.ReadFloat32(v); err != nil {
		g.t.Fatal(err)
	}
	return v
}

func (g golden) ints(name string) []int32 {
	g.t.Helper()
	x, ok := g.r.Tensor(name)
	if !ok {
		g.t.Fatalf("golden has no %s", name)
	}
	b := x.Bytes()
	v := make([]int32, len(b)/4)
	for i := range v {
		v[i] = int32(uint32(b[4*i]) | uint32(b[4*i+1])<<8 | uint32(b[4*i+2])<<16 | uint32(b[4*i+3])<<24)
	}
	return v
}

func (g golden) input() *model.Input {
	in := &model.Input{IDs: g.ints("ids"), Types: g.ints("types"), Offsets: g.ints("offsets")}
	if _, ok := g.r.Tensor("targets"); ok {
		in.Targets = g.ints("targets")
	}
	return in
}

// relative is ‖a−b‖ / ‖b‖.
func relative(a, b []float32) float64 {
	var d, n float64
	for i := range b {
		d += float64(a[i]-b[i]) * float64(a[i]-b[i])
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
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
					d := relative(k.Data, g.floats(fmt.Sprintf("%v.%d", kind, i)))
					t.Logf("%s: off by %.1e of its norm", k.Block, d)
					if k.Block != m.Blocks[i].Name || d > 1e-3 {
						t.Errorf("%s: kernel is off by %g of its norm", k.Block, d)
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
