package fusion

import (
	"context"
	"math"

	"mlpfusion/kernel"
)

// likeness is the least cosine of two units, by their rows of gate and up and their
// columns of down together, at which dern joins them.
const likeness = 0.4

// dern drops the experts that reap does and recombines their units into those that stay,
// the idea of DERN (Dropping Experts, Recombining Neurons, arXiv 2509.10377): each unit
// of a dropped expert joins the kept unit, of any expert, that is most like it, and what
// has joined is averaged by the experts' router weights over the texts. A unit that is
// like none goes. The paper clusters what each kept expert is given; joined units need no
// clustering to fit in.
func init() {
	register(Method{Name: "dern", Rank: 15, About: "reap, the dropped experts' units averaged into the most similar kept ones (DERN)",
		Clusters: true, Mixtures: true, Merges: true, Drops: true, texts: true, seeded: true, mixture: dern})
}

func dern(ctx context.Context, m *Mixture, o Options) (*FusedMixture, error) {
	scores, mass, err := m.saliency(ctx, o)
	if err != nil {
		return nil, err
	}
	keep := largest(scores, o.Experts)
	width := m.Experts[0].Width
	sums := make([][]float64, len(m.Experts))  // of a kept expert's units and what joined them, by mass
	total := make([][]float64, len(m.Experts)) // the masses
	var d int
	for _, e := range keep {
		var rows []float32
		rows, d = m.Experts[e].SubMLPs()
		sums[e], total[e] = make([]float64, len(rows)), make([]float64, width)
		join(sums[e], total[e], rows, d, mass[e], func(i int) int { return i })
	}
	for e, expert := range m.Experts {
		if total[e] != nil || mass[e] == 0 {
			continue
		}
		rows, _ := expert.SubMLPs()
		best, owner, at := make([]float32, width), make([]int, width), make([]int, width)
		for i := range best {
			best[i], owner[i] = likeness, -1
		}
		for _, k := range keep {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			cosines := m.Experts[k].cosines(expert, o.Pool)
			for i := range width {
				for j, c := range cosines[i*width : (i+1)*width] {
					if c > best[i] {
						best[i], owner[i], at[i] = c, k, j
					}
				}
			}
		}
		for _, k := range keep {
			join(sums[k], total[k], rows, d, mass[e], func(i int) int {
				if owner[i] != k {
					return -1
				}
				return at[i]
			})
		}
	}
	return m.dropped(ctx, keep, o, func(e int) *Block {
		x, d := m.Experts[e].SubMLPs()
		for i, w := range total[e] {
			for k := i * d; w > 0 && k < (i+1)*d; k++ {
				x[k] = float32(sums[e][k] / w)
			}
		}
		return m.Experts[e].withUnits(x, width)
	})
}

// join adds rows, each times mass, to the sums of the units that to gives for them; −1 is
// none.
func join(sums, total []float64, rows []float32, d int, mass float64, to func(i int) int) {
	for i := range len(rows) / d {
		j := to(i)
		if j < 0 {
			continue
		}
		total[j] += mass
		for k, v := range rows[i*d : (i+1)*d] {
			sums[j*d+k] += mass * float64(v)
		}
	}
}

// cosines returns the cosine of each unit of other (rows) with each of m (columns).
func (m *MLP) cosines(other *MLP, pool *kernel.Pool) []float32 {
	a, d := other.directions()
	b, _ := m.directions()
	c := make([]float32, other.Width*m.Width)
	pool.Gemm(kernel.FP32, other.Width, m.Width, d, kernel.Mat{Data: a, Stride: d}, kernel.Mat{Data: b, Stride: d, T: true}, c, m.Width, kernel.Epilogue{})
	return c
}

// directions returns the sub-MLPs, each divided by its norm.
func (m *MLP) directions() ([]float32, int) {
	x, d := m.SubMLPs()
	for i := range m.Width {
		row := x[i*d : (i+1)*d]
		kernel.Scale(row, float32(1/math.Max(math.Sqrt(kernel.SumSquares(row)), 1e-30)))
	}
	return x, d
}
