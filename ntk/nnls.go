package ntk

import "math"

// nonNegative minimises ½·aᵀ·G·a − r·a + ½·λ·‖a − 1‖² over a ≥ lower, with λ =
// ridge times the mean of G's diagonal, by coordinate descent: each
// a_k in turn goes to its own minimum.
func nonNegative(g, r []float64, lower, ridge float64) []float64 {
	c := len(r)
	if ridge == 0 {
		ridge = 1e-3
	}
	var lambda float64
	for k := range c {
		lambda += ridge * g[k*c+k] / float64(c)
	}
	a, slope := make([]float64, c), make([]float64, c) // slope: of the objective
	for k := range c {
		a[k] = max(1, lower)
	}
	for k := range c {
		slope[k] = -r[k]
		for j, v := range a {
			slope[k] += g[k*c+j] * v
		}
		slope[k] += lambda * (a[k] - 1)
	}
	const sweeps, tolerance = 5000, 1e-7
	for range sweeps {
		var largest float64
		for k := range c {
			curve := g[k*c+k] + lambda
			if curve <= 0 {
				continue
			}
			next := max(lower, a[k]-slope[k]/curve)
			d := next - a[k]
			if d == 0 {
				continue
			}
			a[k] = next
			for j := range c {
				slope[j] += d * g[k*c+j]
			}
			slope[k] += d * lambda
			largest = max(largest, math.Abs(d))
		}
		if largest < tolerance {
			break
		}
	}
	return a
}
