package fusion

import (
	"context"
	"errors"
)

// shared clusters the hidden units of all experts together into o.Width
// centroids, which all experts then use: expert e computes
//
//	y = W2~·P_e·σ(W1~·x)
//
// with P_e the number of its own units in each cluster, 0 where it has none. One
// set of weights takes the place of E, whatever the number of experts.
func init() {
	register(Method{Name: "shared", Rank: 11, About: "one set of clusters for the units of all experts, each with a P of its own",
		Clusters: true, KeepsP: true, Mixtures: true, seeded: true, mixture: shared})
}

func shared(ctx context.Context, m *Mixture, o Options) (*FusedMixture, error) {
	first := m.Experts[0]
	if first.DownBias != nil {
		return nil, errors.New("fusion: shared units need experts without an output bias")
	}
	b, err := cluster(ctx, m.union(), o)
	if err != nil {
		return nil, err
	}
	f := &FusedMixture{Blocks: []*Block{b}, Of: make([]int, len(m.Experts)), Scale: make([][]float32, len(m.Experts))}
	for e := range m.Experts {
		f.Scale[e] = make([]float32, o.Width)
		for _, k := range b.Assign[e*first.Width : (e+1)*first.Width] {
			f.Scale[e][k]++
		}
	}
	return f, nil
}

// union returns the MLP of all experts' units, one expert after the other.
func (m *Mixture) union() *MLP {
	var x []float32
	for _, e := range m.Experts {
		rows, _ := e.SubMLPs()
		x = append(x, rows...)
	}
	return &m.Experts[0].withUnits(x, len(m.Experts)*m.Experts[0].Width).MLP
}
