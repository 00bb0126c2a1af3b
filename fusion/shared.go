package fusion

import (
	"context"
	"errors"
	"fmt"
)

// shared clusters the hidden units of all experts together into o.Width
// centroids, which all experts then use: expert e computes
//
//	y = W2~·P_e·σ(W1~·x)
//
// with P_e the number of its own units in each cluster, 0 where it has none. One
// set of weights takes the place of E, whatever the number of experts.
type shared struct{}

func (shared) Name() string { return "shared" }

func (shared) Compress(ctx context.Context, m *Mixture, o MixtureOptions) (*FusedMixture, error) {
	if err := m.check(&o); err != nil {
		return nil, err
	}
	first := m.Experts[0]
	if all := len(m.Experts) * first.Width; o.Width < 1 || o.Width > all {
		return nil, fmt.Errorf("fusion: width %d: expected 1 to %d, the units of all experts", o.Width, all)
	}
	switch {
	case first.DownBias != nil:
		return nil, errors.New("fusion: shared units need experts without an output bias")
	case o.Select || o.Refit || o.Fit > 0 || o.Balance:
		return nil, errors.New("fusion: shared units cannot be selected, refitted, fitted or balanced: they have no one output to fit to")
	case o.Weighted && o.Inputs == nil:
		return nil, errNoInputs
	}
	all := m.union()
	b, err := cluster(ctx, all, o.Options)
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
