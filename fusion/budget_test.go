package fusion

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlpfusion/kernel"
)

func drawCurves(t *rapid.T) []Curve {
	curves := make([]Curve, rapid.IntRange(1, 4).Draw(t, "curves"))
	for i := range curves {
		n := rapid.IntRange(1, 5).Draw(t, "points")
		c := Curve{Widths: seq(n)}
		for range n {
			c.Costs = append(c.Costs, rapid.IntRange(0, 20).Draw(t, "cost"))
			c.Errors = append(c.Errors, float64(rapid.IntRange(0, 50).Draw(t, "error"))) // sums exact
		}
		curves[i] = c
	}
	return curves
}

// sum returns what a choice costs and leaves.
func sum(curves []Curve, choice []int) (cost int, err float64) {
	for i, j := range choice {
		cost += curves[i].Costs[j]
		err += curves[i].Errors[j]
	}
	return cost, err
}

// brute tries every choice.
func brute(curves []Curve, budget int) (best float64) {
	best = math.Inf(1)
	choice := make([]int, len(curves))
	for {
		if cost, e := sum(curves, choice); cost <= budget && e < best {
			best = e
		}
		i := 0
		for ; i < len(choice); i++ {
			if choice[i]++; choice[i] < len(curves[i].Costs) {
				break
			}
			choice[i] = 0
		}
		if i == len(choice) {
			return best
		}
	}
}

func TestAllocateIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		curves := drawCurves(t)
		last := math.Inf(1)
		for budget := 0; budget <= 80; budget += rapid.IntRange(1, 7).Draw(t, "step") {
			want := brute(curves, budget)
			choice, err := Allocate(curves, budget)
			if (err != nil) != math.IsInf(want, 1) {
				t.Fatalf("budget %d: error %v, best sum %g", budget, err, want)
			}
			if err != nil {
				continue
			}
			cost, got := sum(curves, choice)
			if cost > budget {
				t.Fatalf("budget %d: costs %d", budget, cost)
			}
			if got != want {
				t.Fatalf("budget %d: errors sum to %g, brute force finds %g", budget, got, want)
			}
			if !(got <= last) {
				t.Fatalf("budget %d: errors sum to %g, a smaller budget gave %g", budget, got, last)
			}
			last = got
			if again, _ := Allocate(curves, budget); !slices.Equal(again, choice) {
				t.Fatal("another answer the second time")
			}
		}
	})
}

// When the frontier is thinned the budget still holds, and the answer is near
// the relaxed optimum.
func TestAllocateThinned(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var curves []Curve
	least, most := 0, 0
	for range 12 {
		c := Curve{}
		cost, e := r.IntN(1e9), 1.0
		for range 8 {
			c.Widths, c.Costs, c.Errors = append(c.Widths, 0), append(c.Costs, cost), append(c.Errors, e)
			cost += 1 + r.IntN(1e9)
			e *= r.Float64()
		}
		least += c.Costs[0]
		most += c.Costs[7]
		curves = append(curves, c)
	}
	budget := (least + most) / 2
	choice, err := Allocate(curves, budget)
	if err != nil {
		t.Fatal(err)
	}
	cost, got := sum(curves, choice)
	if cost > budget {
		t.Errorf("costs %d of a budget of %d", cost, budget)
	}
	// Lagrange: for any price, the sum of min(error + price·cost) less
	// price·budget is a lower bound.
	bound := 0.0
	for price := 1e-12; price < 1e-6; price *= 1.05 {
		low := -price * float64(budget)
		for _, c := range curves {
			m := math.Inf(1)
			for j, e := range c.Errors {
				m = min(m, e+price*float64(c.Costs[j]))
			}
			low += m
		}
		bound = max(bound, low)
	}
	if !(got <= bound+0.1) { // one point of one curve may fall between
		t.Errorf("errors sum to %g, the relaxed optimum is %g", got, bound)
	}
}

func TestAllocateRefusals(t *testing.T) {
	for _, c := range []Curve{{}, {Widths: []int{1}, Costs: []int{1}}, {Widths: []int{1}, Costs: []int{1}, Errors: []float64{math.NaN()}}, {Widths: []int{1}, Costs: []int{-1}, Errors: []float64{0}}} {
		if _, err := Allocate([]Curve{c}, 10); err == nil {
			t.Errorf("curve %v is accepted", c)
		}
	}
}

func TestCost(t *testing.T) {
	m := randomMLP(rand.New(rand.NewPCG(1, 1)), 4, 8, false, true)
	for _, c := range []int{1, 5, 8} {
		b := m.keep(seq(c))
		if got := Params.At(m, c); got != b.Params() {
			t.Errorf("width %d: %d parameters, the block has %d", c, got, b.Params())
		}
		if got := FLOPs.At(m, c); got != b.FLOPs() {
			t.Errorf("width %d: %d FLOPs, the block has %d", c, got, b.FLOPs())
		}
		if got := Bytes.At(m, c); got != 4*b.Params() {
			t.Errorf("width %d: %d bytes of %d parameters", c, got, b.Params())
		}
	}
}

// A block whose units are copies is worth little width, one without copies is
// worth more: budgets follow the curves, whether calibrated or not.
func TestBudgetPrefersTheBlockThatNeedsIt(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	rich := randomMLP(r, 12, 32, false, true)
	poor := rich.gathered([]int{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3})
	poor.Act = kernel.GELU
	for _, in := range []Inputs{nil, matrix{12, tokens(12, 500, 1)}} {
		var curves []Curve
		widths := []int{4, 8, 12, 16, 20, 24, 28, 32}
		total := 0
		for _, m := range []*MLP{rich, poor} {
			c, err := m.Curve(t.Context(), Params, widths, Options{Pool: testPool, Inputs: in})
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i < len(widths); i++ {
				if !(c.Errors[i] <= c.Errors[i-1]) {
					t.Fatalf("the error rises from width %d to %d: %v", widths[i-1], widths[i], c.Errors)
				}
			}
			total += Params.At(m, m.Width)
			curves = append(curves, c)
		}
		choice, err := Allocate(curves, total/2)
		if err != nil {
			t.Fatal(err)
		}
		if widths[choice[1]] != 4 || widths[choice[0]] < 24 {
			t.Errorf("inputs %v: widths %d and %d, want most for the block without copies", in != nil, widths[choice[0]], widths[choice[1]])
		}
	}
}

// Of experts that are alike the one that sees more tokens gets at least as many
// units, and no step of width that is left over fits into the budget.
func TestWeighedCurves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "experts")
		base := Curve{}
		e := 1000.0
		for w := 1; w <= 6; w++ {
			base.Widths, base.Costs = append(base.Widths, w), append(base.Costs, 10*w)
			e -= rapid.Float64Range(1, 100).Draw(t, "gain")
			base.Errors = append(base.Errors, e)
		}
		var curves []Curve
		var shares []float64
		for range n {
			shares = append(shares, rapid.Float64Range(0.01, 1).Draw(t, "share"))
			curves = append(curves, base.Weigh(shares[len(shares)-1], Params))
		}
		budget := rapid.IntRange(10*n, 60*n).Draw(t, "budget")
		points, err := Allocate(curves, budget)
		if err != nil {
			t.Fatal(err)
		}
		spent, full := 0, true
		for i, p := range points {
			spent += curves[i].Costs[p]
			full = full && p == 5
		}
		if spent > budget || !full && spent+10 <= budget {
			t.Fatalf("%d of %d spent, points %v", spent, budget, points)
		}
		for i := range points {
			for j := range points {
				if !(shares[i] <= shares[j]) && !(base.Errors[points[i]]*shares[i]+base.Errors[points[j]]*shares[j] <= base.Errors[points[j]]*shares[i]+base.Errors[points[i]]*shares[j]+1e-9) {
					t.Fatalf("shares %v got points %v", shares, points)
				}
			}
		}
		if c := base.Weigh(0.25, FLOPs); c.Costs[3] != 10 || c.Errors[3] != base.Errors[3]/4 || base.Costs[3] != 40 {
			t.Fatalf("a quarter of the tokens: costs %v, errors %v", c.Costs, c.Errors)
		}
	})
}
