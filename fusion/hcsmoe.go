package fusion

import (
	"context"
	"math"
	"slices"
)

// hc-smoe merges experts as HC-SMoE does (arXiv 2410.08589): agglomerative
// clustering with average linkage of the experts' mean outputs over all
// calibration tokens, by Euclidean distance; weights are averaged by usage, unit
// by unit as they lie.
func init() {
	register(Method{Name: "hc-smoe", Rank: 13, About: "experts with like outputs become one",
		Clusters: true, Mixtures: true, Merges: true, texts: true, seeded: true,
		mixture: func(ctx context.Context, m *Mixture, o Options) (*FusedMixture, error) {
			r, err := m.route(ctx, o, true)
			if err != nil {
				return nil, err
			}
			return m.merge(ctx, averageLinkage(r.mean, o.Experts), r.tokens, false, o)
		}})
}

// averageLinkage clusters the points into k groups, joining each time the two
// whose points are nearest on average; ties go to the lower.
func averageLinkage(points [][]float64, k int) []int {
	n := len(points)
	distance := func(a, b int) float64 {
		var s float64
		for i, v := range points[a] {
			d := v - points[b][i]
			s += d * d
		}
		return math.Sqrt(s)
	}
	groups := make([][]int, n)
	for i := range groups {
		groups[i] = []int{i}
	}
	for len(groups) > k {
		least, x, y := math.Inf(1), 0, 1
		for i, a := range groups {
			for j := i + 1; j < len(groups); j++ {
				var s float64
				for _, p := range a {
					for _, q := range groups[j] {
						s += distance(p, q)
					}
				}
				if s /= float64(len(a) * len(groups[j])); s < least {
					least, x, y = s, i, j
				}
			}
		}
		groups[x] = append(groups[x], groups[y]...)
		groups = slices.Delete(groups, y, y+1)
	}
	of := make([]int, n)
	for _, g := range groups {
		for _, e := range g {
			of[e] = slices.Min(g)
		}
	}
	return numbered(of)
}
