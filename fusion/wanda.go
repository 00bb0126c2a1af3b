package fusion

import (
	"context"
	"math"
)

// wanda keeps the units with the largest product of activation and weights,
// ‖a_i‖₂·‖w2_i‖₁ with a_i the unit's activations on the calibration inputs: the
// structured form of Wanda (arXiv 2306.11695), "Wanda-sp", as FLAP's authors define
// and compare it (arXiv 2312.11983). Gated, the activation is that of the product.
func init() {
	register(Method{Name: "wanda", Rank: 9, About: "the units with the largest activations times weights on texts (Wanda-sp)",
		Blind: "prune", Units: true, texts: true,
		block: func(ctx context.Context, m *MLP, o Options) (*Block, error) {
			a, err := m.activations(ctx, o)
			if err != nil {
				return nil, err
			}
			scores := make([]float64, m.Width)
			for i := range scores {
				for r := range m.Hidden {
					scores[i] += math.Abs(float64(m.Down[r*m.Width+i]))
				}
				scores[i] *= math.Sqrt(a.square[i])
			}
			return m.keep(largest(scores, o.Width)), nil
		}})
}
