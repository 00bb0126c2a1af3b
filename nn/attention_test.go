package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/kernel"
)

// TestCausalAttention compares output and gradients with the definition in
// float64, for sequences of less and of more than a block of queries, of all
// queries and of the last ones only.
func TestCausalAttention(t *testing.T) {
	const heads, dim = 2, 8
	keys := []int32{0, 3, 3 + 2*causalBlock + 5, 3 + 3*causalBlock + 5}
	for _, queries := range [][]int32{keys, {0, 1, 1 + causalBlock + 9, 1 + causalBlock + 9}} {
		t.Run(fmt.Sprint(queries), func(t *testing.T) {
			rows, n := int(keys[len(keys)-1]), int(queries[len(queries)-1])
			rng := rand.New(rand.NewPCG(3, 4))
			data := make([]float32, rows*3*heads*dim)
			for i := range data {
				data[i] = float32(rng.NormFloat64())
			}
			dy := make([]float32, n*heads*dim)
			for i := range dy {
				dy[i] = float32(rng.NormFloat64())
			}
			var first []float32
			for _, workers := range []int{1, 3} {
				pool := kernel.NewPool(workers)
				defer pool.Close()
				tape := NewTape(pool)
				tape.Train = true
				tape.Reset(0)
				x := tape.New(rows, 3*heads*dim)
				copy(x.Data, data)
				part := func(i int) Heads { return Heads{X: x, Start: i * heads * dim} }
				y := tape.Attention(part(0), part(1), part(2), queries, keys,
					AttentionOptions{Heads: heads, Dim: dim, Causal: true, LastQueries: n < rows})
				y.Grad = slices.Clone(dy)
				tape.Backward()
				got := append(slices.Clone(y.Data), x.Grad...)
				if first != nil {
					if !slices.Equal(got, first) {
						t.Error("three workers' bytes differ from one's")
					}
					continue
				}
				first = got
				wantY, wantX := causal(data, dy, queries, keys, heads, dim)
				for i, want := range append(wantY, wantX...) {
					if math.Abs(float64(got[i])-want) > 2e-5 {
						t.Fatalf("element %d is %g, want %g", i, got[i], want)
					}
				}
			}
		})
	}
}

// causal computes attention and the gradient of ⟨y, dy⟩ by the definition.
func causal(x, dy []float32, queries, keys []int32, heads, dim int) (y, dx []float64) {
	cols := 3 * heads * dim
	y, dx = make([]float64, len(dy)), make([]float64, len(x))
	at := func(row, which, h, d int) int { return row*cols + (which*heads+h)*dim + d }
	for seq := range len(keys) - 1 {
		for q := queries[seq]; q < queries[seq+1]; q++ {
			place := int(keys[seq+1] - queries[seq+1] + q)
			for h := range heads {
				first := int(keys[seq])
				p := make([]float64, place-first+1)
				var z float64
				for k := range p {
					for d := range dim {
						p[k] += float64(x[at(place, 0, h, d)]) * float64(x[at(first+k, 1, h, d)]) / math.Sqrt(float64(dim))
					}
					p[k] = math.Exp(p[k])
					z += p[k]
				}
				dp, mean := make([]float64, len(p)), 0.0
				for k := range p {
					p[k] /= z
					for d := range dim {
						o := (int(q)*heads+h)*dim + d
						y[o] += p[k] * float64(x[at(first+k, 2, h, d)])
						dp[k] += float64(dy[o]) * float64(x[at(first+k, 2, h, d)])
						dx[at(first+k, 2, h, d)] += p[k] * float64(dy[o])
					}
					mean += p[k] * dp[k]
				}
				for k := range p {
					ds := p[k] * (dp[k] - mean) / math.Sqrt(float64(dim))
					for d := range dim {
						dx[at(place, 0, h, d)] += ds * float64(x[at(first+k, 1, h, d)])
						dx[at(first+k, 1, h, d)] += ds * float64(x[at(place, 0, h, d)])
					}
				}
			}
		}
	}
	return y, dx
}
