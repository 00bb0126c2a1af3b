package fusion

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// goldenCase is one case of scripts/goldens/fusion.py.
type goldenCase struct{ *golden.File }

func openGolden(t testing.TB, name string) goldenCase {
	return goldenCase{golden.Open(t, filepath.Join("testdata", "golden", name+".safetensors"))}
}

func eachGolden(t *testing.T, f func(t *testing.T, g goldenCase)) {
	for _, name := range []string{"plain", "gated", "expert"} {
		t.Run(name, func(t *testing.T) { f(t, openGolden(t, name)) })
	}
}

// get returns a tensor, nil when the case has none of that name.
func (g goldenCase) get(name string) []float32 {
	if _, ok := g.Tensor(name); !ok {
		return nil
	}
	return g.Floats(name)
}

func (g goldenCase) ints(name string) []int {
	var n []int
	for _, v := range g.get(name) {
		n = append(n, int(v))
	}
	return n
}

// mlp returns the case's block and fused width.
func (g goldenCase) mlp() (*MLP, int) {
	s := g.ints("shape")
	m := &MLP{
		Hidden: s[0], Width: s[1], Act: kernel.GELU,
		Gate: g.get("weights.gate"), Up: g.get("weights.up"), UpBias: g.get("weights.up_bias"),
		Down: g.get("weights.down"), DownBias: g.get("weights.down_bias"),
	}
	switch {
	case m.Gate != nil:
		m.Act = kernel.SiLU
	case m.UpBias == nil:
		m.Act = kernel.ReLU
	}
	return m, s[2]
}

// output is the block's output on the case's inputs.
func (g goldenCase) output(b *Block) []float32 {
	x := g.get("x")
	y := make([]float32, len(x))
	b.Forward(testPool, x, len(x)/b.Hidden, y)
	return y
}

// rounding bounds the relative difference of two float32 computations of sums
// of some hundred products: a few units of 2^-24 for each of the chained sums.
const rounding = 2e-6

// near fails unless got and want differ by at most tol of want's largest value.
func near(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	golden.Near(t, what, got, want, tol*golden.Largest(want, make([]float32, len(want))))
}

var testPool = kernel.NewPool(2)

func compress(t testing.TB, name string, m *MLP, o Options) *Block {
	t.Helper()
	method, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	o.Pool = testPool
	b, err := method.Compress(context.Background(), m, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func TestGoldenForward(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		near(t, "output", g.output(compress(t, "none", m, Options{Width: c})), g.get("y"), rounding)
		rows, _ := m.SubMLPs()
		near(t, "sub-MLP matrix", rows, g.get("rows"), 0)
	})
}

func TestGoldenSketch(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		near(t, "output", g.output(sketched(m, g.get("sketch.s"), c, testPool)), g.get("sketch.y"), rounding)
	})
}

func TestGoldenSVD(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		b := compress(t, "svd", m, Options{Width: c})
		if want := g.ints("svd.rank")[0]; b.Factors.Rank != want {
			t.Fatalf("rank %d, want %d", b.Factors.Rank, want)
		}
		near(t, "output", g.output(b), g.get("svd.y"), rounding)
		for _, w := range []struct {
			name       string
			data       []float32
			rows, cols int
		}{{"gate", m.Gate, m.Width, m.Hidden}, {"up", m.Up, m.Width, m.Hidden}, {"down", m.Down, m.Hidden, m.Width}} {
			if w.data == nil {
				continue
			}
			_, _, s, err := truncate(w.data, w.rows, w.cols, 1, testPool)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(s))
			for i, v := range s {
				got[i] = float32(v)
			}
			near(t, w.name+" singular values", got, g.get("svd.values."+w.name), rounding)
		}
	})
}

func TestGoldenPrune(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		if got, want := largest(m.pruneScores(), c), g.ints("prune.units"); !slices.Equal(got, want) {
			t.Errorf("kept units %v, want %v", got, want)
		}
		near(t, "output", g.output(compress(t, "prune", m, Options{Width: c})), g.get("prune.y"), rounding)
	})
}

// The baselines that look at texts, here the case's inputs.
func TestGoldenTextBaselines(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		for _, name := range []string{"wanda", "flap"} {
			b := compress(t, name, m, Options{Width: c, Inputs: matrix{m.Hidden, g.get("x")}})
			want := m.keep(g.ints(name + ".units"))
			if !slices.Equal(b.Up, want.Up) || !slices.Equal(b.Gate, want.Gate) || !slices.Equal(b.Down, want.Down) {
				t.Errorf("%s: other units than %v", name, g.ints(name+".units"))
			}
			near(t, name, g.output(b), g.get(name+".y"), rounding)
		}
	})
}

func TestGoldenMagnitude(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		b := compress(t, "magnitude", m, Options{Width: c})
		left := 0
		for _, w := range [][]float32{b.Gate, b.Up, b.Down} {
			for _, v := range w {
				if v != 0 {
					left++
				}
			}
		}
		if want := g.ints("magnitude.left")[0]; left != want {
			t.Errorf("%d weights left, want %d", left, want)
		}
		// A fused block's parameters are its units' and the output bias.
		_, d := m.parts()
		if got, want := b.Params(), c*d+len(m.DownBias); got != want {
			t.Errorf("%d parameters, want a fused block's %d", got, want)
		}
		near(t, "output", g.output(b), g.get("magnitude.y"), rounding)
	})
}

func TestGoldenFusion(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		assign := make([]int32, m.Width)
		sizes := make([]int32, c)
		for i, k := range g.ints("fusion.assign") {
			assign[i] = int32(k)
			sizes[k]++
		}
		fused := func() *Block {
			b, err := m.fuse(assign, sizes, testPool)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		b := fused()
		near(t, "fusion", g.output(b.keepSizes()), g.get("fusion.y"), rounding)
		near(t, "cluster", g.output(fused().scaleRoots()), g.get("fusion.cluster_y"), rounding)
		near(t, "inertia", []float32{float32(b.Inertia), float32(b.InputInertia)},
			append(g.get("fusion.inertia"), g.get("fusion.total")...), rounding)
	})
}

// The descent amplifies rounding; the script measured by how much, up to each
// step ("gap"). Ours is one more sample of the same, allowed three times the
// largest of the script's.
func TestGoldenMMD(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, c := g.mlp()
		x, d := m.SubMLPs()
		f := newMMDFit(x, m.Width, d, g.ints("mmd.start"), testPool)
		losses, gap := g.get("mmd.losses"), g.get("mmd.gap")
		for i, want := range losses {
			limit := 3*float64(gap[i]) + 1e-5
			if got := f.loss(); !(math.Abs(got-float64(want)) <= limit*float64(want)) {
				t.Fatalf("step %d: loss %.8f, want %.8f within %.1g", i, got, want, limit)
			}
			f.step()
		}
		if len(losses) != mmdSteps {
			t.Errorf("%d steps in the golden, want %d", len(losses), mmdSteps)
		}
		// The output scaling, on the reference's rows.
		near(t, "output", g.output(m.mmdBlock(g.get("mmd.rows"), c)), g.get("mmd.y"), rounding)
	})
}

// The gradients at the reference's own rows, where nothing is amplified.
func TestGoldenMMDGradients(t *testing.T) {
	eachGolden(t, func(t *testing.T, g goldenCase) {
		m, _ := g.mlp()
		x, d := m.SubMLPs()
		for _, step := range []string{"0", "1", "30", "99"} {
			f := newMMDFit(x, m.Width, d, g.ints("mmd.start"), testPool)
			copy(f.y, g.get("mmd.step."+step+".rows"))
			f.measure()
			f.gradients()
			// The direction between rows at distance d is known to 1e-7·‖row‖/d in
			// float32, and late rows come as near as 1e-3 of their norms.
			near(t, "gradient at step "+step, f.grad, g.get("mmd.step."+step+".grad"), 1e-3)
		}
	})
}

// loss returns the squared discrepancy at the current rows; the descent itself
// never needs it.
func (f *mmdFit) loss() float64 {
	f.measure()
	if f.bw == 0 {
		return 0
	}
	var xx, xy, yy float64
	f.eachXX(func(d float64) { k, _ := kernels(d, f.bw); xx += k })
	for _, d := range f.cross {
		k, _ := kernels(float64(d), f.bw)
		xy += k
	}
	for _, d := range f.inner {
		k, _ := kernels(float64(d), f.bw)
		yy += k
	}
	n, m := float64(f.n), float64(f.m)
	return xx/(n*n) - 2*xy/(n*m) + yy/(m*m)
}
