package fusion

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// prune keeps the c hidden units with the largest product of their weights'
// norms: ‖w1_i‖·‖w2_i‖, which bounds what the unit can add to the output per
// unit of input for an activation of slope one; gated, ‖gate_i‖·‖up_i‖·‖down_i‖,
// the same bound for the product of two projections. Biases do not count, as
// in the baseline the paper compares with. Ties go to the lower unit; the kept
// units stay in order.
func init() {
	register(Method{Name: "prune", Rank: 7, About: "the units with the largest weights",
		Units: true, block: pruned})
}

func pruned(_ context.Context, m *MLP, o Options) (*Block, error) {
	return m.keep(largest(m.pruneScores(), o.Width)), nil
}

func (m *MLP) pruneScores() []float64 {
	list, _ := m.parts()
	scores := make([]float64, m.Width)
	for i := range scores {
		scores[i] = 1
		for _, t := range list {
			if t.bias {
				continue
			}
			var s float64
			for k := range t.n {
				v := float64(t.data[i*t.unit+k*t.step])
				s += v * v
			}
			scores[i] *= math.Sqrt(s)
		}
	}
	return scores
}

// largest returns the indices of the c largest scores, in rising order.
func largest(scores []float64, c int) []int {
	idx := make([]int, len(scores))
	for i := range idx {
		idx[i] = i
	}
	slices.SortStableFunc(idx, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	slices.Sort(idx[:c])
	return idx[:c]
}

// keep returns the block made of the given units.
func (m *MLP) keep(units []int) *Block {
	x, d := m.SubMLPs()
	rows := make([]float32, 0, len(units)*d)
	for _, i := range units {
		rows = append(rows, x[i*d:(i+1)*d]...)
	}
	return m.withUnits(rows, len(units))
}
