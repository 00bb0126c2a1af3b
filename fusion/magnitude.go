package fusion

import (
	"cmp"
	"context"
	"slices"
)

// magnitude sets the smallest weights of the block's matrices to zero, taken
// together, until as many parameters are left as a fused block of the width
// has; biases stay, and count. The zeros are a mask that training has to keep.
// It saves no time: it is a reference for accuracy at equal size.
func init() {
	register(Method{Name: "magnitude", Rank: 8, About: "not units: the smallest single weights become zero",
		block: masked})
}

func masked(_ context.Context, m *MLP, o Options) (*Block, error) {
	b := &Block{MLP: m.clone(), Masked: true}
	matrices := [][]float32{b.Gate, b.Up, b.Down}

	// c units' weights and biases, less the biases of all p_I units.
	_, d := m.parts()
	left := o.Width*d - len(m.UpBias) - len(m.GateBias)

	type weight struct {
		size float32
		at   *float32
	}
	all := make([]weight, 0, len(b.Gate)+len(b.Up)+len(b.Down))
	for _, t := range matrices {
		for i, v := range t {
			all = append(all, weight{max(v, -v), &t[i]})
		}
	}
	// Equal sizes: the one that comes first in the block stays.
	slices.SortStableFunc(all, func(a, b weight) int { return cmp.Compare(b.size, a.size) })
	for _, w := range all[max(left, 0):] {
		*w.at = 0
	}
	return b, nil
}
