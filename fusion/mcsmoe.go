package fusion

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// mc-smoe merges experts as the first half of MC-SMoE does (arXiv 2310.01334):
// the experts that get the most tokens stay, each of the others joins the one
// whose router logits are most like its own (by cosine), the units of a group
// are brought into the order of its dominant expert, and weights are averaged
// by usage. How many stay is given for a layer, where the paper ranks the
// experts of all layers together.
func init() {
	register(Method{Name: "mc-smoe", Rank: 12, About: "experts join the most used ones by their router logits, units aligned",
		Clusters: true, Mixtures: true, Merges: true, texts: true, seeded: true,
		mixture: func(ctx context.Context, m *Mixture, o Options) (*FusedMixture, error) {
			r, err := m.route(ctx, o, false)
			if err != nil {
				return nil, err
			}
			return m.merge(ctx, groupByRouter(r, o.Experts), r.tokens, true, o)
		}})
}

// groupByRouter returns the group of each expert, numbered by their first
// experts.
func groupByRouter(r *routed, keep int) []int {
	n := len(r.tokens)
	order := make([]int, n)
	for e := range order {
		order[e] = e
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.tokens[b], r.tokens[a]) })
	dominant := order[:keep]
	slices.Sort(dominant)
	leader := make([]int, n)
	for e := range n {
		if slices.Contains(dominant, e) {
			leader[e] = e
			continue
		}
		best := math.Inf(-1)
		for _, d := range dominant {
			like := r.like[e][d] / math.Sqrt(r.like[e][e]*r.like[d][d])
			if math.IsNaN(like) { // logits that are all 0
				like = 0
			}
			if like > best {
				best, leader[e] = like, d
			}
		}
	}
	return numbered(leader)
}
