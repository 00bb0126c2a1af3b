package fusion

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// The greedy choice, computed from the definition: refit on every candidate set
// and keep the best unit.
func TestPickIsGreedy(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for _, gated := range []bool{false, true} {
		m := randomMLP(r, 5, 12, gated, true)
		x := tokens(m.Hidden, 300, 1)
		want := output(m, m.Hidden, x)
		o := Options{Width: 5, Pool: testPool, Inputs: matrix{m.Hidden, x}, Ridge: 1e-9}
		var chosen []int
		var curve []float64
		for range o.Width {
			best, least := -1, math.Inf(1)
			for i := range m.Width {
				if slices.Contains(chosen, i) {
					continue
				}
				b := m.keep(append(slices.Clone(chosen), i))
				if err := refit(t.Context(), m, b, o); err != nil {
					t.Fatal(err)
				}
				if e := squaredError(output(b, m.Hidden, x), want); e < least {
					best, least = i, e
				}
			}
			chosen = append(chosen, best)
			curve = append(curve, least)
		}
		got, unexplained, err := pick(t.Context(), m, o)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, chosen) {
			t.Errorf("gated %v: picked %v, want %v", gated, got, chosen)
		}
		paired := o
		paired.Inputs = pairs{matrix{m.Hidden, x}, output(m, m.Hidden, x)}
		if again, _, err := pick(t.Context(), m, paired); err != nil || !slices.Equal(again, chosen) {
			t.Errorf("gated %v: picked %v (%v) from pairs, want %v", gated, again, err, chosen)
		}
		for k, want := range curve {
			// The refit has a ridge of 1e-6 at least; both are float32 sums.
			if e := unexplained[k+1]; !(math.Abs(e-want) <= 1e-4*unexplained[0]) {
				t.Errorf("gated %v: %d units leave %g, want %g", gated, k+1, e, want)
			}
		}
	}
}

// Duplicates add nothing: with c distinct units, calibrated finds one of each
// and is the original function.
func TestCalibratedOnDuplicates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		units := seq(m.Width)
		for range rapid.IntRange(0, 2*m.Width).Draw(t, "copies") {
			units = append(units, rapid.IntRange(0, m.Width-1).Draw(t, "unit"))
		}
		wide := m.gathered(units)
		x := tokens(m.Hidden, 200, 1)
		b := mustCompress(t, "calibrated", wide, Options{Width: m.Width, Inputs: matrix{m.Hidden, x}, Fit: 1})
		// A unit that leaves less than 1e-6 of the mean square unexplained counts
		// as a duplicate too, 1e-3 of the output, and there may be a few.
		golden.NearNorm(t, "output", output(b, m.Hidden, x), output(wide, m.Hidden, x), 1e-2)
		var sum float32
		for _, s := range b.Scale {
			sum += s
		}
		if int(sum) != len(units) {
			t.Fatalf("cluster sizes sum to %g, want %d", sum, len(units))
		}
	})
}

func TestFitIsNeverWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMLP(t)
		x := tokens(m.Hidden, 100, 1)
		want := output(m, m.Hidden, x)
		o := Options{Width: rapid.IntRange(1, m.Width).Draw(t, "c"), Inputs: matrix{m.Hidden, x}}
		for _, name := range []string{"fusion", "cluster", "prune", "sketch"} {
			before := squaredError(output(mustCompress(t, name, m, o), m.Hidden, x), want)
			with := o
			with.Fit = 20
			after := squaredError(output(mustCompress(t, name, m, with), m.Hidden, x), want)
			if !(after <= before*(1+1e-5)) {
				t.Fatalf("%s: squared error %g after the fit, %g before", name, after, before)
			}
		}
	})
}

// Gradients against central differences of the loss.
func TestFitGradients(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, gated := range []bool{false, true} {
		m := randomMLP(r, 3, 4, gated, true)
		x := tokens(m.Hidden, 6, 1)
		y := tokens(m.Hidden, 6, 2)
		f := newFitter(m, testPool)
		weights := []float32{1, 2, 0.5, 1, 3, 0.1}
		f.gradients(x, y, weights, 6)
		loss := func() (sum float64) {
			got := output(m, m.Hidden, x)
			for k, w := range weights {
				sum += float64(w) * squaredError(got[k*m.Hidden:(k+1)*m.Hidden], y[k*m.Hidden:(k+1)*m.Hidden]) / 2
			}
			return sum
		}
		for i := range f.tensors {
			tensor := &f.tensors[i]
			var got, want []float32
			for k := range tensor.w {
				v := tensor.w[k]
				const h = 1e-2 // error h²·f‴/6 ≈ 1e-4 and rounding 1e-7·loss/h
				tensor.w[k] = v + h
				up := loss()
				tensor.w[k] = v - h
				down := loss()
				tensor.w[k] = v
				got, want = append(got, tensor.grad[k]), append(want, float32((up-down)/(2*h)))
			}
			if len(want) > 0 {
				golden.NearNorm(t, "gradient", got, want, 1e-3)
			}
		}
	}
}

// The batches of a fit share out all its tokens, each with its output and weight, and
// every batch has tokens from the beginning to the end.
func TestBatchesAreSpread(t *testing.T) {
	const n, p, batches = 11, 2, 3
	r := &recording{x: tokens(p, n, 1), y: tokens(p, n, 2), weight: tokens(1, n, 3), tokens: n}
	got := &recording{x: make([]float32, n*p), y: make([]float32, n*p), weight: make([]float32, n)}
	for k := range batches {
		x, y, weights, rows := r.spread(k, batches)
		if rows < n/batches || rows > n/batches+1 || len(weights) != rows {
			t.Errorf("batch %d of %d: %d tokens and %d weights of %d", k, batches, rows, len(weights), n)
		}
		for i, w := range weights {
			at := k + i*batches
			copy(got.x[at*p:], x[i*p:(i+1)*p])
			copy(got.y[at*p:], y[i*p:(i+1)*p])
			got.weight[at] = w
		}
	}
	golden.Near(t, "inputs", got.x, r.x, 0)
	golden.Near(t, "outputs", got.y, r.y, 0)
	golden.Near(t, "weights", got.weight, r.weight, 0)
}

func TestFitRefusesOtherForms(t *testing.T) {
	m := randomMLP(rand.New(rand.NewPCG(1, 1)), 4, 8, false, true)
	o := Options{Width: 4, Pool: testPool, Inputs: matrix{4, tokens(4, 9, 1)}, Fit: 3}
	for _, name := range []string{"svd", "magnitude"} {
		method, _ := Lookup(name)
		if _, err := method.Compress(t.Context(), m, o); err == nil {
			t.Errorf("%s: fitted, though it is not dense", name)
		}
	}
}

// What calibrated is for, on random weights: less error than every method with
// the same refit.
func TestCalibratedIsClosest(t *testing.T) {
	m := randomMLP(rand.New(rand.NewPCG(3, 1)), 16, 64, false, true)
	m.Act = kernel.GELU
	x, held := tokens(m.Hidden, 3000, 1), tokens(m.Hidden, 500, 2)
	want := output(m, m.Hidden, held)
	o := Options{Width: 16, Inputs: matrix{m.Hidden, x}, Refit: true}
	least := golden.Relative(output(mustCompress(t, "calibrated", m, o), m.Hidden, held), want)
	for _, name := range []string{"fusion", "cluster", "sketch", "svd", "mmd", "prune", "magnitude"} {
		if e := golden.Relative(output(mustCompress(t, name, m, o), m.Hidden, held), want); !(e >= least) {
			t.Errorf("%s with the refit: error %.3f, calibrated has %.3f", name, e, least)
		}
	}
}

// A balanced P changes what trains, not what is computed: a unit of twice the
// weights has twice the P, and the outputs stay.
func TestBalance(t *testing.T) {
	for _, gated := range []bool{false, true} {
		m := randomMLP(rand.New(rand.NewPCG(4, 1)), 6, 8, gated, true)
		for r := range m.Hidden { // units 0 and 1 alike, but for a factor of 3 in their share with P
			m.Down[r*m.Width+1] = 1.5 * m.Down[r*m.Width]
		}
		for _, w := range [][]float32{m.Up, m.Gate} {
			if w != nil {
				copy(w[m.Hidden:2*m.Hidden], w[:m.Hidden])
			}
		}
		x := tokens(m.Hidden, 30, 1)
		b := &Block{MLP: m.clone(), Scale: []float32{1, 2, 1, 3, 1, 1, 1, 1}}
		want := output(b, m.Hidden, x)
		b.balance(8000)
		golden.NearNorm(t, "output", output(b, m.Hidden, x), want, 1e-5)
		var sum float64
		for _, p := range b.Scale {
			sum += float64(p)
		}
		if !(math.Abs(sum-8000) <= 8) || !(math.Abs(float64(b.Scale[1]/b.Scale[0]-3)) <= 0.01) {
			t.Errorf("gated %v: P is %v, want units of 8000 shared by weight, 1 having three times 0's", gated, b.Scale)
		}
	}
	silent := &Block{MLP: MLP{Hidden: 1, Width: 2, Up: make([]float32, 2), Down: make([]float32, 2)}, Scale: []float32{3, 4}}
	silent.balance(7)
	if !slices.Equal(silent.Scale, []float32{3, 4}) {
		t.Errorf("P of a block that gives nothing became %v", silent.Scale)
	}
}
