package fusion

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// mcSMoE merges experts as the first half of MC-SMoE does (arXiv 2310.01334):
// the experts that get the most tokens stay, each of the others joins the one
// whose router logits are most like its own (by cosine), the units of a group
// are brought into the order of its dominant expert, and weights are averaged
// by usage. How many stay is given for a layer, where the paper ranks the
// experts of all layers together.
type mcSMoE struct{}

func (mcSMoE) Name() string { return "mc-smoe" }

func (mcSMoE) Compress(ctx context.Context, m *Mixture, o MixtureOptions) (*FusedMixture, error) {
	if err := m.checkMerge(&o); err != nil {
		return nil, err
	}
	r, err := m.route(ctx, &o, false)
	if err != nil {
		return nil, err
	}
	return m.merge(ctx, groupByRouter(r, o.Experts), r.tokens, true, o)
}

// hcSMoE merges experts as HC-SMoE does (arXiv 2410.08589): agglomerative
// clustering with average linkage of the experts' mean outputs over all
// calibration tokens, by Euclidean distance; weights are averaged by usage, unit
// by unit as they lie.
type hcSMoE struct{}

func (hcSMoE) Name() string { return "hc-smoe" }

func (hcSMoE) Compress(ctx context.Context, m *Mixture, o MixtureOptions) (*FusedMixture, error) {
	if err := m.checkMerge(&o); err != nil {
		return nil, err
	}
	r, err := m.route(ctx, &o, true)
	if err != nil {
		return nil, err
	}
	return m.merge(ctx, averageLinkage(r.mean, o.Experts), r.tokens, false, o)
}

func (m *Mixture) checkMerge(o *MixtureOptions) error {
	if err := m.check(o); err != nil {
		return err
	}
	if n := len(m.Experts); o.Experts < 1 || o.Experts > n {
		return fmt.Errorf("fusion: experts to keep: expected 1 to %d, the layer's own number, found %d", n, o.Experts)
	}
	if o.Weighted || o.Select || o.Refit || o.Fit > 0 || o.Balance {
		return errors.New("fusion: merged experts cannot be weighted, selected, refitted, fitted or balanced")
	}
	if w := m.Experts[0].Width; o.Width < 1 || o.Width > w {
		return fmt.Errorf("fusion: width %d: expected 1 to %d, the experts' own width", o.Width, w)
	}
	return nil
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

// numbered renames labels 0, 1, … by first appearance.
func numbered(labels []int) []int {
	name := map[int]int{}
	of := make([]int, len(labels))
	for i, l := range labels {
		if _, ok := name[l]; !ok {
			name[l] = len(name)
		}
		of[i] = name[l]
	}
	return of
}

// merge replaces each group by the mean of its experts, weighted by their
// tokens, and fuses that to o.Width units where that is less than it has. A
// group that gets no tokens is averaged evenly.
func (m *Mixture) merge(ctx context.Context, of, tokens []int, aligned bool, o MixtureOptions) (*FusedMixture, error) {
	f := &FusedMixture{Of: of}
	for g := range slices.Max(of) + 1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var group []int
		leader, all := -1, 0
		for e, label := range of {
			if label == g {
				group = append(group, e)
				all += tokens[e]
				if leader < 0 || tokens[e] > tokens[leader] {
					leader = e
				}
			}
		}
		lead := m.Experts[leader]
		x, d := lead.SubMLPs()
		sum, bias := make([]float64, len(x)), make([]float64, len(lead.DownBias))
		for _, e := range group {
			share := 1 / float64(len(group))
			if all > 0 {
				share = float64(tokens[e]) / float64(all)
			}
			expert := m.Experts[e]
			rows, _ := expert.SubMLPs()
			var order []int
			if aligned && e != leader {
				order = expert.align(lead, o.Pool)
			}
			for i := range lead.Width {
				from := i
				if order != nil {
					from = order[i]
				}
				for k, v := range rows[from*d : (from+1)*d] {
					sum[i*d+k] += share * float64(v)
				}
			}
			for k, v := range expert.DownBias {
				bias[k] += share * float64(v)
			}
		}
		for i, v := range sum {
			x[i] = float32(v)
		}
		b := lead.withUnits(x, lead.Width)
		for k, v := range bias {
			b.DownBias[k] = float32(v)
		}
		if o.Width < lead.Width {
			var err error
			single := o.Options
			single.Inputs = nil
			if b, err = (method{fused{}}).Compress(ctx, &b.MLP, single); err != nil {
				return nil, err
			}
		}
		f.Blocks = append(f.Blocks, b)
	}
	return f, nil
}
