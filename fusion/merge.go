package fusion

import (
	"context"
	"slices"
)

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
func (m *Mixture) merge(ctx context.Context, of, tokens []int, aligned bool, o Options) (*FusedMixture, error) {
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
			if b, err = fused(ctx, &b.MLP, o); err != nil {
				return nil, err
			}
		}
		f.Blocks = append(f.Blocks, b)
	}
	return f, nil
}
