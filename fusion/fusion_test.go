package fusion

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// randomMLP returns a block with weights around 0.3, every shape of it: gated or
// not, with biases or not.
func randomMLP(r *rand.Rand, hidden, width int, gated, biased bool) *MLP {
	draw := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64() * 0.3)
		}
		return v
	}
	m := &MLP{Hidden: hidden, Width: width, Act: kernel.GELU, Up: draw(width * hidden), Down: draw(hidden * width)}
	if gated {
		m.Act, m.Gate = kernel.SiLU, draw(width*hidden)
	}
	if biased {
		m.UpBias, m.DownBias = draw(width), draw(hidden)
		if gated {
			m.GateBias = draw(width)
		}
	}
	return m
}

func drawMLP(t *rapid.T) *MLP {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	return randomMLP(r, rapid.IntRange(1, 9).Draw(t, "hidden"), rapid.IntRange(1, 24).Draw(t, "width"),
		rapid.Bool().Draw(t, "gated"), rapid.Bool().Draw(t, "biased"))
}

// tokens returns n random inputs of the block.
func tokens(hidden, n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 2))
	x := make([]float32, n*hidden)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

type forwarder interface {
	Forward(pool *kernel.Pool, x []float32, tokens int, out []float32)
}

func output(f forwarder, hidden int, x []float32) []float32 {
	y := make([]float32, len(x))
	f.Forward(testPool, x, len(x)/hidden, y)
	return y
}

// cancelled allows for terms a hundred times larger than their sum: the
// properties draw blocks at random, down to one input and one output. A wrong
// formula is off by far more.
const cancelled = 100 * rounding

type fataler interface {
	golden.Tester
	Fatalf(string, ...any)
}

// singles are the methods for single blocks.
func singles() []string { return Names(func(m *Method) bool { return !m.Mixtures }) }

func mustCompress(t fataler, name string, m *MLP, o Options) *Block {
	t.Helper()
	method, err := Lookup(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	o.Pool = testPool
	b, err := method.Compress(context.Background(), m, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// gathered returns m with its units in the given order, which may repeat some.
func (m *MLP) gathered(units []int) *MLP { b := m.keep(units); return &b.MLP }

func TestNoneIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		x := tokens(m.Hidden, 5, 1)
		if !slices.Equal(output(mustCompress(t, "none", m, Options{Width: 1}), m.Hidden, x), output(m, m.Hidden, x)) {
			t.Fatal("none changes the output")
		}
	})
}

// ward is the clustering whose result does not depend on the units' order, of methods
// that cluster.
func ward(method string) kmeans.Algorithm {
	if m, err := Lookup(method); err != nil || !m.Clusters {
		return ""
	}
	return kmeans.AlgorithmWard
}

// At full width there is nothing to cut, cluster or mask.
func TestFullWidthIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		x := tokens(m.Hidden, 5, 1)
		want := output(m, m.Hidden, x)
		for _, name := range []string{"prune", "magnitude", "fusion", "cluster", "wanda", "flap"} {
			golden.NearNorm(t, name, output(mustCompress(t, name, m, Options{Width: m.Width, Clustering: ward(name), Inputs: matrix{m.Hidden, x}}), m.Hidden, x), want, cancelled)
		}
	})
}

// At full rank the factors are the matrix. (At full width the rank is lower:
// two factors of full rank would cost more than the matrix.)
func TestSVDOfFullRankIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		for _, w := range []struct {
			data       []float32
			rows, cols int
		}{{m.Up, m.Width, m.Hidden}, {m.Down, m.Hidden, m.Width}} {
			rank := min(w.rows, w.cols)
			u, v, _, err := truncate(w.data, w.rows, w.cols, rank, testPool)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(w.data))
			testPool.Gemm(kernel.FP32, w.rows, w.cols, rank, kernel.Mat{Data: u, Stride: rank}, kernel.Mat{Data: v, Stride: w.cols}, got, w.cols, kernel.Epilogue{})
			golden.NearNorm(t, "U·S·Vᵀ", got, w.data, cancelled)
		}
	})
}

func TestSVDRank(t *testing.T) {
	for _, c := range []struct{ p, pI, c, want int }{
		{768, 3072, 768, 153}, // c/5, as the paper's code has it
		{384, 1536, 384, 76},
		{384, 1536, 4, 1}, // never 0
		{4096, 14336, 3584, 796},
	} {
		got := svdRank(c.p, c.pI, c.c)
		if got != c.want {
			t.Errorf("rank for p=%d p_I=%d c=%d: %d, want %d", c.p, c.pI, c.c, got, c.want)
		}
		if got > 1 && (got*(c.p+c.pI) > c.c*c.p || (got+1)*(c.p+c.pI) <= c.c*c.p) {
			t.Errorf("rank %d is not the largest at equal FLOPs", got)
		}
	}
}

// TestDuplicatesFuseExactly: when X has c distinct rows, fused and original are one
// function (docs/method.md, "What is exact").
func TestDuplicatesFuseExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		units := make([]int, m.Width, 3*m.Width)
		for i := range units {
			units[i] = i
		}
		for range rapid.IntRange(0, 2*m.Width).Draw(t, "copies") {
			units = append(units, rapid.IntRange(0, m.Width-1).Draw(t, "unit"))
		}
		wide := m.gathered(units)
		x := tokens(m.Hidden, 5, 1)
		want := output(wide, m.Hidden, x)
		for _, algorithm := range []kmeans.Algorithm{kmeans.AlgorithmWard, kmeans.AlgorithmBest} {
			b := mustCompress(t, "fusion", wide, Options{Width: m.Width, Clustering: algorithm})
			golden.NearNorm(t, string(algorithm), output(b, m.Hidden, x), want, cancelled)
			if !(b.Inertia <= 1e-10*b.InputInertia) {
				t.Fatalf("inertia %g of duplicates, of %g in all", b.Inertia, b.InputInertia)
			}
		}
	})
}

// The order of hidden units means nothing.
func TestPermutationChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		c := rapid.IntRange(1, m.Width).Draw(t, "c")
		units := rapid.Permutation(seq(m.Width)).Draw(t, "order")
		x := tokens(m.Hidden, 5, 1)
		for _, name := range []string{"none", "fusion", "cluster", "svd", "prune", "magnitude", "wanda", "flap"} {
			o := Options{Width: c, Clustering: ward(name), Inputs: matrix{m.Hidden, x}}
			got := output(mustCompress(t, name, m.gathered(units), o), m.Hidden, x)
			want := output(mustCompress(t, name, m, o), m.Hidden, x)
			golden.NearNorm(t, name, got, want, cancelled)
		}
	})
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestFoldIsTheSameFunction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		c := rapid.IntRange(1, m.Width).Draw(t, "c")
		x := tokens(m.Hidden, 5, 1)
		b := mustCompress(t, "fusion", m, Options{Width: c})
		want := output(b, m.Hidden, x)
		b.Fold()
		if b.Scale != nil {
			t.Fatal("P is still there")
		}
		golden.NearNorm(t, "folded", output(&b.MLP, m.Hidden, x), want, cancelled)
	})
}

// Every method at every width from 1: a block of the right shape, finite, with
// the cost that its form has, and the same bytes again on one worker.
func TestEveryMethodEveryShape(t *testing.T) {
	one := kernel.NewPool(1)
	defer one.Close()
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		before := m.clone()
		c := rapid.SampledFrom([]int{1, (m.Width + 1) / 2, m.Width}).Draw(t, "c")
		zero := rapid.Bool().Draw(t, "zero unit")
		if zero {
			m.setUnit(0, 0)
			before = m.clone()
		}
		x := tokens(m.Hidden, 5, 1)
		for _, name := range singles() {
			o := Options{Width: c, Seed: 3, Inputs: matrix{m.Hidden, x}}
			b := mustCompress(t, name, m, o)
			y := output(b, m.Hidden, x)
			for _, v := range y {
				if !finite(v) {
					t.Fatalf("%s: output %v", name, v)
				}
			}
			if b.Hidden != m.Hidden || (b.Gate != nil) != (m.Gate != nil) && b.Factors == nil || (b.DownBias != nil) != (m.DownBias != nil) && name != "flap" {
				t.Fatalf("%s: other tensors than the original's", name)
			}
			_, d := m.parts()
			switch name {
			case "none":
			case "magnitude":
				if want := max(c*d, len(m.UpBias)+len(m.GateBias)) + len(m.DownBias); b.Params() != want && !zero {
					t.Fatalf("%s: %d parameters, want %d", name, b.Params(), want)
				}
			case "svd":
				full := Block{MLP: m.shape(c)}
				if b.Factors.Rank > 1 && b.FLOPs() > full.FLOPs() {
					t.Fatalf("%s: %d FLOPs, more than a fused block's %d", name, b.FLOPs(), full.FLOPs())
				}
			default:
				if b.Width != c || b.Params() != c*d+len(b.DownBias) {
					t.Fatalf("%s: width %d with %d parameters, want %d with %d", name, b.Width, b.Params(), c, c*d+len(b.DownBias))
				}
			}
			method, _ := Lookup(name)
			o.Pool = one
			again, err := method.Compress(context.Background(), m, o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(output(again, m.Hidden, x), y) {
				t.Fatalf("%s: another result with one worker", name)
			}
			if got := m.clone(); !slices.Equal(got.Up, before.Up) || !slices.Equal(got.Down, before.Down) {
				t.Fatalf("%s: changed its input", name)
			}
		}
	})
}

// setUnit sets all of unit i's weights to v.
func (m *MLP) setUnit(i int, v float32) {
	list, _ := m.parts()
	for _, t := range list {
		for k := range t.n {
			t.data[i*t.unit+k*t.step] = v
		}
	}
}

// matrix is Inputs held in memory.
type matrix struct {
	hidden int
	x      []float32
}

func (m matrix) Each(f func(x []float32, tokens int) error) error {
	return f(m.x, len(m.x)/m.hidden)
}

func TestRefusals(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	good := func() *MLP { return randomMLP(r, 4, 6, false, true) }
	nan := float32(math.NaN())
	for _, c := range []struct {
		name string
		with func(m *MLP, o *Options)
		want string
	}{
		{"width 0", func(m *MLP, o *Options) { o.Width = 0 }, "width 0: expected 1 to 6"},
		{"width above", func(m *MLP, o *Options) { o.Width = 7 }, "width 7: expected 1 to 6"},
		{"NaN up", func(m *MLP, o *Options) { m.Up[2*4+1] = nan }, "up: hidden unit 2 holds NaN"},
		{"Inf bias", func(m *MLP, o *Options) { m.UpBias[5] = float32(math.Inf(1)) }, "up bias: hidden unit 5 holds +Inf"},
		{"NaN down", func(m *MLP, o *Options) { m.Down[3*6+4] = nan }, "down: hidden unit 4 holds NaN"},
		{"NaN output bias", func(m *MLP, o *Options) { m.DownBias[1] = nan }, "down bias: output 1 holds NaN"},
		{"short up", func(m *MLP, o *Options) { m.Up = m.Up[:20] }, "up: expected 24 values for 6 hidden units, found 20"},
		{"no down", func(m *MLP, o *Options) { m.Down = nil }, "needs up and down weights"},
		{"no pool", func(m *MLP, o *Options) { o.Pool = nil }, "Pool is missing"},
		{"no inputs", func(m *MLP, o *Options) { o.Refit = true }, "calibration needs inputs"},
		{"empty inputs", func(m *MLP, o *Options) { o.Refit, o.Inputs = true, matrix{4, nil} }, "calibration inputs are empty"},
		{"NaN inputs", func(m *MLP, o *Options) { o.Refit, o.Inputs = true, matrix{4, []float32{1, nan, 0, 0}} }, "not finite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, o := good(), Options{Width: 3, Pool: testPool}
			c.with(m, &o)
			for _, name := range singles() {
				method, _ := Lookup(name)
				if _, err := method.Compress(context.Background(), m, o); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: error %v, want one with %q", name, err, c.want)
				}
			}
		})
	}
	if _, err := Lookup("fusio"); err == nil || !strings.Contains(err.Error(), "none, fusion, calibrated") {
		t.Errorf("Lookup of an unknown name: %v, want the list of names", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, name := range singles() {
		method, _ := Lookup(name)
		if _, err := method.Compress(ctx, good(), Options{Width: 3, Pool: testPool, Inputs: matrix{4, tokens(4, 3, 1)}}); err == nil {
			t.Errorf("%s: goes on after its context has ended", name)
		}
	}
}

// Spending the weights changes nothing but what is left of them.
func TestSpend(t *testing.T) {
	for _, name := range singles() {
		for _, gated := range []bool{false, true} {
			m := randomMLP(rand.New(rand.NewPCG(9, 9)), 6, 24, gated, true)
			x := tokens(m.Hidden, 40, 1)
			o := Options{Width: 8, Seed: 3, Inputs: matrix{m.Hidden, x}}
			if method, _ := Lookup(name); !method.UsesTexts(o) {
				o.Inputs = nil
			}
			want := output(mustCompress(t, name, m, o), m.Hidden, x)
			o.Spend = true
			if got := output(mustCompress(t, name, m, o), m.Hidden, x); !slices.Equal(got, want) {
				t.Errorf("%s, gated %v: another block when the weights may be spent", name, gated)
			}
			if spent := len(m.Up) == 0; spent != (name == "fusion" || name == "cluster") {
				t.Errorf("%s, gated %v: spent %v", name, gated, spent)
			}
		}
	}
}
