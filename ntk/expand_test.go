package ntk

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// TestExpand: whatever the form of the MLP, and however its units are divided,
// the sum over tokens of δ·xᵀ of the expanded layers is the gradient that the
// tape computes. The bound is float32's rounding with a margin.
func TestExpand(t *testing.T) {
	const p, units, tokens = 6, 10, 9
	pool := kernel.NewPool(2)
	defer pool.Close()
	for variant := range 8 {
		gated, biased, scaled := variant&1 != 0, variant&2 != 0, variant&4 != 0
		t.Run(fmt.Sprint("gated ", gated, " biased ", biased, " scaled ", scaled), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, uint64(variant)))
			random := func(n int) []float32 {
				v := make([]float32, n)
				for i := range v {
					v[i] = float32(rng.NormFloat64())
				}
				return v
			}
			weight := func(rows, cols int) *nn.Weight {
				return &nn.Weight{Data: random(rows * cols), Rows: rows, Cols: cols}
			}
			linear := func(in, out int) *nn.Linear {
				l := &nn.Linear{W: weight(out, in)}
				if biased {
					l.B = weight(1, out)
				}
				return l
			}
			mlp := &model.MLP{Up: linear(p, units), Down: linear(units, p), Act: kernel.GELU}
			if scaled {
				mlp.ClusterSizes = []float32{1, 2, 3, 4, 5, 1, 2, 3, 4, 5}
			}
			tape := nn.NewTape(pool)
			tape.Train = true
			tape.Reset(0)
			x, target := tape.New(tokens, p), tape.New(tokens, p)
			copy(x.Data, random(tokens*p))
			copy(target.Data, random(tokens*p))
			var h *nn.Tensor
			if gated {
				mlp.Gate = linear(p, units)
				h = tape.Gated(tape.Linear(x, mlp.Gate, kernel.Identity, nil), tape.Linear(x, mlp.Up, kernel.Identity, nil), mlp.Act, mlp.ClusterSizes)
			} else {
				h = tape.Linear(x, mlp.Up, mlp.Act, mlp.ClusterSizes)
			}
			y := tape.Linear(h, mlp.Down, kernel.Identity, nil)
			tape.SquaredDistance(y, target, 1, nil)
			f := &factors{x: x.Data, dy: append([]float32(nil), y.Grad...), offsets: []int32{0, 4, 4, tokens}}
			tape.Backward()
			for _, group := range []int{units, 3} {
				got := map[*nn.Weight][]float64{}
				for from := 0; from < units; from += group {
					to := min(units, from+group)
					layers := expand(pool, mlp, f, nil, from, to)
					matrices := []*nn.Linear{mlp.Up, mlp.Down}
					if gated {
						matrices = []*nn.Linear{mlp.Gate, mlp.Up, mlp.Down}
					}
					for i, l := range matrices {
						row, col := from, 0
						if l == mlp.Down {
							row, col = 0, from
						}
						collect(got, l, &layers[i], row, col, tokens)
					}
				}
				for w, g := range got {
					golden.NearNorm(t, fmt.Sprintf("groups of %d: the gradient of a %d×%d matrix", group, w.Rows, w.Cols), g, w.Grad, 1e-5)
				}
			}
		})
	}
}

// collect adds a layer's gradients to those of the whole matrix, where the layer
// begins at a row and column.
func collect(sums map[*nn.Weight][]float64, l *nn.Linear, part *layer, row, col, tokens int) {
	for _, w := range []*nn.Weight{l.W, l.B} {
		if w != nil && sums[w] == nil {
			sums[w] = make([]float64, len(w.Data))
		}
	}
	for t := range tokens {
		for o := range part.out {
			d := float64(part.d[t*part.out+o])
			for i := range part.in {
				sums[l.W][(row+o)*l.W.Cols+col+i] += d * float64(part.x[t*part.in+i])
			}
			if part.bias {
				sums[l.B][row+o] += d
			}
		}
	}
}
