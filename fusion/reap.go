package fusion

import (
	"context"
	"math"
	"slices"

	"mlpfusion/kernel"
)

// reap drops experts as REAP does (Router-weighted Expert Activation Pruning, arXiv
// 2510.13999, equation 9): those stay whose output, times the router's weight for it, has
// the largest norm on average over the tokens that are routed to them. An expert that no
// token comes to goes first. The kept ones are as they were.
func init() {
	register(Method{Name: "reap", Rank: 14, About: "the experts with the largest outputs times router weights on texts (REAP)",
		Clusters: true, Mixtures: true, Merges: true, Drops: true, texts: true, seeded: true,
		mixture: func(ctx context.Context, m *Mixture, o Options) (*FusedMixture, error) {
			scores, _, err := m.saliency(ctx, o)
			if err != nil {
				return nil, err
			}
			return m.dropped(ctx, largest(scores, o.Experts), o, func(e int) *Block { return &Block{MLP: m.Experts[e].clone()} })
		}})
}

// saliency returns, for each expert, the mean over its tokens of what multiplies its
// output times the output's norm, and the sum over them of the multipliers.
func (m *Mixture) saliency(ctx context.Context, o Options) (scores, mass []float64, err error) {
	n, p := len(m.Experts), m.Experts[0].Hidden
	scores, mass = make([]float64, n), make([]float64, n)
	tokens := make([]float64, n)
	x, y := make([]float32, chunk*p), make([]float32, chunk*p)
	var rows []int32
	var weights []float32
	err = m.eachRouted(ctx, o, func(inputs []float32, experts []int32, w []float32, count, k int) error {
		for e, expert := range m.Experts {
			rows, weights = rows[:0], weights[:0]
			for j, to := range experts {
				if int(to) == e {
					rows, weights = append(rows, int32(j/k)), append(weights, w[j])
				}
			}
			for i, row := range rows {
				copy(x[i*p:(i+1)*p], inputs[int(row)*p:])
			}
			if len(rows) == 0 {
				continue
			}
			expert.Forward(o.Pool, x, len(rows), y)
			for i, w := range weights {
				norm := math.Sqrt(kernel.SumSquares(y[i*p : (i+1)*p]))
				if norm-norm != 0 {
					return errNotFinite
				}
				scores[e] += float64(w) * norm
				mass[e] += float64(w)
			}
			tokens[e] += float64(len(rows))
		}
		return nil
	})
	for e := range scores {
		scores[e] /= max(1, tokens[e])
	}
	return scores, mass, err
}

// dropped returns the mixture of the experts to keep alone, each as made says, and fused
// to o.Width units where it has more.
func (m *Mixture) dropped(ctx context.Context, keep []int, o Options, made func(e int) *Block) (*FusedMixture, error) {
	f := &FusedMixture{Of: slices.Repeat([]int{-1}, len(m.Experts))}
	for _, e := range keep {
		b, err := made(e), error(nil)
		if o.Width < b.Width {
			if b, err = fused(ctx, &b.MLP, o); err != nil {
				return nil, err
			}
		}
		f.Of[e] = len(f.Blocks)
		f.Blocks = append(f.Blocks, b)
	}
	return f, nil
}
