package ntk

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestNonNegative checks the conditions of the minimum (Karush, Kuhn, Tucker):
// the objective's slope is 0 in every free multiplier, and not negative in every
// one that lies at the bound.
func TestNonNegative(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		const c, rows = 30, 40
		m, g, r := make([]float64, rows*c), make([]float64, c*c), make([]float64, c)
		for i := range m {
			m[i] = rng.NormFloat64() + 0.5
		}
		for i := range rows {
			y := rng.NormFloat64() + 3
			for k := range c {
				r[k] += m[i*c+k] * y
				for j := range c {
					g[k*c+j] += m[i*c+k] * m[i*c+j]
				}
			}
		}
		lower, ridge := 0.1*rng.Float64()*float64(seed%2), 1e-3
		var lambda float64
		for k := range c {
			lambda += ridge * g[k*c+k] / c
		}
		a := nonNegative(g, r, lower, ridge)
		bound := 0
		for k := range c {
			slope := -r[k] + lambda*(a[k]-1)
			for j := range c {
				slope += g[k*c+j] * a[j]
			}
			slope /= g[k*c+k]
			switch {
			case !(a[k] >= lower):
				t.Errorf("a[%d] = %g is under %g", k, a[k], lower)
			case a[k] == lower:
				bound++
				if !(slope >= -1e-4) {
					t.Errorf("a[%d] is at the bound with slope %g", k, slope)
				}
			case !(math.Abs(slope) <= 1e-4):
				t.Errorf("a[%d] = %g has slope %g", k, a[k], slope)
			}
		}
		if bound == 0 || bound == c {
			t.Errorf("%d of %d multipliers at the bound: no test", bound, c)
		}
	}
}
