package fusion

import "context"

// flap keeps the units whose activations fluctuate most for their weights,
// Var(a_i)·‖w2_i‖₂², and makes up for the others by adding what they give on
// average, Σ E[a_i]·w2_i, to the output bias: FLAP (arXiv 2312.11983, its metric
// WIFV), with the units of each block counted by themselves. A block without an
// output bias gets one.
func init() {
	register(Method{Name: "flap", Rank: 10, About: "the units that fluctuate most on texts, the others' means in the output bias (FLAP)",
		Blind: "prune", Units: true, texts: true,
		block: func(ctx context.Context, m *MLP, o Options) (*Block, error) {
			a, err := m.activations(ctx, o)
			if err != nil {
				return nil, err
			}
			scores := make([]float64, m.Width)
			for i := range scores {
				for r := range m.Hidden {
					w := float64(m.Down[r*m.Width+i])
					scores[i] += w * w
				}
				scores[i] *= a.square[i] - a.mean[i]*a.mean[i]
			}
			kept := largest(scores, o.Width)
			b := m.keep(kept)
			for _, i := range kept {
				a.mean[i] = 0
			}
			if b.DownBias == nil {
				b.DownBias = make([]float32, m.Hidden)
			}
			for r := range b.DownBias {
				sum := float64(b.DownBias[r])
				for i, mean := range a.mean {
					sum += mean * float64(m.Down[r*m.Width+i])
				}
				b.DownBias[r] = float32(sum)
			}
			return b, nil
		}})
}
