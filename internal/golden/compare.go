package golden

import (
	"math"
)

// Tester is what a comparison needs of *testing.T, and of *rapid.T.
type Tester interface {
	Helper()
	Errorf(format string, args ...any)
}

// Float is what can be compared. The two sides may differ, so that a sum in
// float64 serves as what a float32 is to be.
type Float interface{ ~float32 | ~float64 }

// Near fails the test unless got and want have the same number of elements, at least
// one, and no element differs by more than tol. NaN is near nothing.
func Near[G, W Float](t Tester, what string, got []G, want []W, tol float64) {
	t.Helper()
	switch d, i := largest(got, want); {
	case i < 0:
		t.Errorf("%s: %d values, want %d and at least one", what, len(got), len(want))
	case !(d <= tol):
		t.Errorf("%s: element %d is %g, want %g: off by %.3g, at most %.3g is allowed", what, i, got[i], want[i], d, tol)
	}
}

// NearNorm fails the test unless ‖got−want‖ ≤ tol·‖want‖, under the conditions of Near.
func NearNorm[G, W Float](t Tester, what string, got []G, want []W, tol float64) {
	t.Helper()
	if d := Relative(got, want); !(d <= tol) {
		t.Errorf("%s: %d values off by %.3g of the norm of the %d wanted, at most %.3g is allowed", what, len(got), d, len(want), tol)
	}
}

// NearValue fails the test unless |got−want| ≤ tol.
func NearValue(t Tester, what string, got, want, tol float64) {
	t.Helper()
	if d := math.Abs(got - want); !(d <= tol) {
		t.Errorf("%s is %g, want %g: off by %.3g, at most %.3g is allowed", what, got, want, d, tol)
	}
}

// Largest returns the largest difference of two elements; +Inf if one is not a
// number, the lengths differ or there are no elements.
func Largest[G, W Float](got []G, want []W) float64 {
	d, _ := largest(got, want)
	return d
}

// largest says also where the difference is, -1 if there is nothing to compare.
func largest[G, W Float](got []G, want []W) (float64, int) {
	if len(got) != len(want) || len(want) == 0 {
		return math.Inf(1), -1
	}
	worst, at := 0.0, 0
	for i, w := range want {
		switch d := math.Abs(float64(got[i]) - float64(w)); {
		case d != d:
			return math.Inf(1), i
		case d > worst:
			worst, at = d, i
		}
	}
	return worst, at
}

// Relative returns ‖got−want‖/‖want‖; 0 where both vanish, and +Inf where Largest
// does or only want vanishes.
func Relative[G, W Float](got []G, want []W) float64 {
	if math.IsInf(Largest(got, want), 1) {
		return math.Inf(1)
	}
	var d, n float64
	for i, w := range want {
		e := float64(got[i]) - float64(w)
		d, n = d+e*e, n+float64(w)*float64(w)
	}
	if d == 0 {
		return 0
	}
	return math.Sqrt(d / n)
}

// Norm returns ‖x‖, +Inf if an element is not a number.
func Norm[F Float](x []F) float64 {
	var n float64
	for _, v := range x {
		n += float64(v) * float64(v)
	}
	if n != n {
		return math.Inf(1)
	}
	return math.Sqrt(n)
}
