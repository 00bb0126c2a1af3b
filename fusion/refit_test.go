package fusion

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

func squaredError(got, want []float32) float64 {
	var s float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		s += d * d
	}
	return s
}

// The ridge pulls towards the layer that the method made, so on the calibration
// inputs themselves no ridge can make a block worse.
func TestRefitIsNeverWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		x := tokens(m.Hidden, rapid.IntRange(1, 60).Draw(t, "tokens"), 1)
		want := output(m, m.Hidden, x)
		var size float64
		for _, v := range want {
			size += float64(v) * float64(v)
		}
		o := Options{Width: rapid.IntRange(1, m.Width).Draw(t, "c"), Seed: 1, Inputs: matrix{m.Hidden, x}}
		ridge := rapid.SampledFrom([]float64{1e-6, 1e-4, 1, 100}).Draw(t, "ridge")
		for _, name := range singles() {
			if name == "calibrated" {
				continue // is always refitted
			}
			before := squaredError(output(mustCompress(t, name, m, o), m.Hidden, x), want)
			with := o
			with.Refit, with.Ridge = true, ridge
			b := mustCompress(t, name, m, with)
			after := squaredError(output(b, m.Hidden, x), want)
			// Sums of squares in float32 activations: to rounding.
			if !(after <= before*(1+1e-4)+1e-9*size) {
				t.Fatalf("%s: squared error %g after the refit, %g before", name, after, before)
			}
			if name == "magnitude" && !sameMask(b.Down, mustCompress(t, name, m, o).Down) {
				t.Fatal("magnitude: the refit brought cut weights back")
			}
			if name == "fusion" && b.Scale == nil {
				t.Fatal("fusion: the refit dropped P")
			}
		}
	})
}

func sameMask(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return (x == 0) == (y == 0) })
}

// With a ridge near nothing the errors that are left have no component along
// any feature, nor a mean: the defining property of least squares.
func TestRefitLeavesNothingToExplain(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, gated := range []bool{false, true} {
		for _, name := range []string{"fusion", "prune", "svd", "sketch"} {
			m := randomMLP(r, 6, 30, gated, true)
			x := tokens(m.Hidden, 2000, 1)
			n := len(x) / m.Hidden
			b := mustCompress(t, name, m, Options{Width: 10, Inputs: matrix{m.Hidden, x}, Refit: true, Ridge: 1e-9})
			want, got := output(m, m.Hidden, x), output(b, m.Hidden, x)
			h := make([]float32, n*b.inputs())
			b.features(testPool, x, n, h)
			for out := range m.Hidden {
				var mean, size float64
				along := make([]float64, b.inputs())
				norm := make([]float64, b.inputs())
				for i := range n {
					e := float64(want[i*m.Hidden+out] - got[i*m.Hidden+out])
					mean += e
					size += e * e
					for k := range along {
						v := float64(h[i*b.inputs()+k])
						along[k] += e * v
						norm[k] += v * v
					}
				}
				// The cosine between errors and feature, in float32 weights.
				limit := 1e-3
				if c := math.Abs(mean) / math.Sqrt(size*float64(n)); !(c <= limit) {
					t.Errorf("%s: output %d has a mean error (cosine %.2g)", name, out, c)
				}
				for k := range along {
					if c := math.Abs(along[k]) / math.Sqrt(size*norm[k]); norm[k] != 0 && !(c <= limit) {
						t.Errorf("%s: output %d, feature %d: cosine %.2g with the errors", name, out, k, c)
					}
				}
			}
		}
	}
}

// Behind a compressed block the inputs differ, and the pair says what is wanted.
func TestRefitOnPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	m := randomMLP(r, 6, 30, false, true)
	original := tokens(m.Hidden, 600, 1)
	x := slices.Clone(original)
	for i := range x {
		x[i] = 0.9*x[i] + 0.1 // a drift that a linear layer can undo in part
	}
	want := output(m, m.Hidden, original)
	o := Options{Width: 12, Inputs: pairs{matrix{m.Hidden, x}, want}}
	plain := squaredError(output(mustCompress(t, "none", m, o), m.Hidden, x), want)
	o.Refit = true
	fitted := squaredError(output(mustCompress(t, "none", m, o), m.Hidden, x), want)
	if !(fitted < 0.7*plain) {
		t.Errorf("squared error %g after the refit on pairs, %g before: want well below", fitted, plain)
	}
}

type pairs struct {
	matrix
	want []float32
}

func (p pairs) EachPair(f func(x, want []float32, tokens int) error) error {
	return f(p.x, p.want, len(p.x)/p.hidden)
}

// What weighting is for: two kinds of units, alike in weights, of which the
// inputs use one. Unweighted clustering cannot see that.
func TestWeightedClusteringFollowsTheInputs(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, gated := range []bool{false, true} {
		m := randomMLP(r, 8, 48, gated, true)
		x := tokens(m.Hidden, 400, 1)
		for i := range x {
			if i%m.Hidden >= 2 {
				x[i] *= 0.01 // only two inputs vary
			}
		}
		want := output(m, m.Hidden, x)
		o := Options{Width: 12, Inputs: matrix{m.Hidden, x}, Clustering: kmeans.AlgorithmWard}
		plain := squaredError(output(mustCompress(t, "fusion", m, o), m.Hidden, x), want)
		o.Weighted = true
		weighted := squaredError(output(mustCompress(t, "fusion", m, o), m.Hidden, x), want)
		if !(weighted < plain) {
			t.Errorf("gated %v: squared error %g weighted, %g plain", gated, weighted, plain)
		}
	}
}

// The weights of one unit's share are, by definition, root mean squares.
func TestUse(t *testing.T) {
	m := &MLP{Hidden: 1, Width: 1, Act: kernel.ReLU, Up: []float32{2}, UpBias: []float32{1}, Down: []float32{5}}
	x := []float32{1, -1} // pre-activations 3, −1: activations 3, 0; slopes 1, 0
	o := Options{Pool: testPool, Inputs: matrix{1, x}}
	u, err := m.use(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		got, want float64
	}{{"input", u.input[0], 1}, {"slope", u.up[0], math.Sqrt(0.5)}, {"activation", u.down[0], math.Sqrt(4.5)}} {
		if !(math.Abs(c.got-c.want) <= 1e-6) {
			t.Errorf("%s: rms %g, want %g", c.what, c.got, c.want)
		}
	}
	// Gated: y = 5·relu(2x+1)·(3x): u = 3, −3.
	m.Gate, m.GateBias, m.Up, m.UpBias = m.Up, m.UpBias, []float32{3}, nil
	if u, err = m.use(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		got, want float64
	}{{"gate", u.gate[0], math.Sqrt(4.5)}, {"up", u.up[0], math.Sqrt(4.5)}, {"down", u.down[0], math.Sqrt(40.5)}} {
		if !(math.Abs(c.got-c.want) <= 1e-6) {
			t.Errorf("gated %s: rms %g, want %g", c.what, c.got, c.want)
		}
	}
}

// weighted are inputs whose tokens do not count alike.
type weighted struct {
	matrix
	weights []float32
}

func (w weighted) Weights() []float32 { return w.weights }

// A token of weight 3 is three tokens: in the choice of units, their clusters and the
// refit.
func TestWeightsCountTokens(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for _, gated := range []bool{false, true} {
		m := randomMLP(r, 6, 30, gated, true)
		x := tokens(m.Hidden, 200, 1)
		weights := make([]float32, 200)
		var repeated []float32
		for i := range weights {
			n := 1 + r.IntN(4)
			weights[i] = float32(n) * 0.01
			for range n {
				repeated = append(repeated, x[i*m.Hidden:(i+1)*m.Hidden]...)
			}
		}
		o := Options{Width: 10, Select: true, Refit: true, Inputs: weighted{matrix{m.Hidden, x}, weights}}
		got := mustCompress(t, "fusion", m, o)
		o.Inputs = matrix{m.Hidden, repeated}
		want := mustCompress(t, "fusion", m, o)
		if !slices.Equal(got.Assign, want.Assign) {
			t.Errorf("gated %v: clusters %v, want %v", gated, got.Assign, want.Assign)
		}
		golden.Near(t, "down", got.Down, want.Down, 1e-3) // float32 sums in two orders, through a solve
		golden.Near(t, "down bias", got.DownBias, want.DownBias, 1e-3)
		o.Inputs = matrix{m.Hidden, x}
		if alike := mustCompress(t, "fusion", m, o); slices.Equal(alike.Down, got.Down) {
			t.Errorf("gated %v: weights changed nothing", gated)
		}
	}
}

// A gated block makes up for half of what the blocks before it have lost.
func TestGatedPairsAreHalfMadeUpFor(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, gated := range []bool{false, true} {
		m := randomMLP(r, 6, 8, gated, false)
		x, want := tokens(m.Hidden, 9, 1), tokens(m.Hidden, 9, 2)
		own := output(m, m.Hidden, x)
		o := Options{Pool: testPool, Inputs: pairs{matrix{m.Hidden, x}, slices.Clone(want)}}
		err := o.teacher(m).each(context.Background(), true, func(_, y, _ []float32, _ int) error {
			for i := range want {
				if gated {
					want[i] = (want[i] + own[i]) / 2
				}
			}
			golden.Near(t, "what is to be given", y, want, 1e-6)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
