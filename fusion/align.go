package fusion

import (
	"math"

	"mlpfusion/kernel"
)

// align returns the order in which m's hidden units are nearest to those of to:
// unit order[i] of m stands for unit i of to, and the sum of squared distances
// of such pairs of sub-MLPs is the least of all orders ("weight matching",
// arXiv 2209.04836). The order of units means nothing to an MLP, but means
// taken over MLPs need one.
func (m *MLP) align(to *MLP, pool *kernel.Pool) []int {
	a, d := to.SubMLPs()
	b, _ := m.SubMLPs()
	n := m.Width
	gain := make([]float32, n*n)
	pool.Gemm(kernel.FP32, n, n, d, kernel.Mat{Data: a, Stride: d}, kernel.Mat{Data: b, Stride: d, T: true}, gain, n, kernel.Epilogue{})
	return assignment(gain, n)
}

// assignment returns a column for each row of the n×n matrix, each column once,
// so that the gains sum to the most: the Hungarian method by shortest augmenting
// paths (Jonker and Volgenant 1987), O(n³) at worst. It is exact for the float32
// gains, in float64. Of rows and columns that tie it takes the first.
func assignment(gain []float32, n int) []int {
	// Rows are added one by one. price[j] − gain is the reduced cost; along a
	// shortest path of reduced costs from the new row to a free column, pairs
	// are exchanged.
	const none = -1
	rowPrice, colPrice := make([]float64, n), make([]float64, n)
	rowOf, colOf := make([]int, n), make([]int, n)
	for i := range n {
		rowOf[i], colOf[i] = none, none
	}
	reach := make([]float64, n) // length of the shortest path known to each column
	from := make([]int, n)      // the row before it
	done := make([]bool, n)
	for row := range n {
		for j := range n {
			reach[j], done[j] = math.Inf(1), false
		}
		last, length, free := row, 0.0, none
		var visited []int // columns, in the order they were reached
		for free == none {
			line := gain[last*n : (last+1)*n]
			next := none
			for j, g := range line {
				if done[j] {
					continue
				}
				if l := length - float64(g) - rowPrice[last] - colPrice[j]; l < reach[j] {
					reach[j], from[j] = l, last
				}
				if next == none || reach[j] < reach[next] {
					next = j
				}
			}
			done[next], length = true, reach[next]
			if rowOf[next] == none {
				free = next
			} else {
				visited = append(visited, next)
				last = rowOf[next]
			}
		}
		rowPrice[row] += length
		for _, j := range visited {
			rowPrice[rowOf[j]] += length - reach[j]
			colPrice[j] -= length - reach[j]
		}
		for j := free; ; {
			i := from[j]
			rowOf[j] = i
			colOf[i], j = j, colOf[i]
			if i == row {
				break
			}
		}
	}
	return colOf
}
