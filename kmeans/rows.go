package kmeans

import (
	"cmp"
	"slices"
)

// rows are the distinct rows of a matrix in lexicographic order.
type rows struct {
	x       []float32
	n, d    int
	order   []int32   // n: all rows, sorted; equal rows lie together, by index
	first   []int32   // u+1: order[first[r]:first[r+1]] are the copies of distinct row r
	mean    []float64 // d: of all rows
	largest float32   // the largest absolute value
	weight  []float64 // u: number of copies
}

func distinctRows(x []float32, n, d int) *rows {
	r := &rows{x: x, n: n, d: d, order: make([]int32, n), mean: make([]float64, d)}
	for i := range r.order {
		r.order[i] = int32(i)
	}
	compare := func(a, b int32) int { return slices.Compare(r.row(a), r.row(b)) }
	slices.SortFunc(r.order, func(a, b int32) int { return cmp.Or(compare(a, b), cmp.Compare(a, b)) })
	for p := range r.order {
		if p == 0 || compare(r.order[p-1], r.order[p]) != 0 {
			r.first = append(r.first, int32(p))
		}
		for j, v := range r.row(r.order[p]) {
			r.mean[j] += float64(v)
			r.largest = max(r.largest, v, -v)
		}
	}
	r.first = append(r.first, int32(n))
	for j := range r.mean {
		r.mean[j] /= float64(n)
	}
	r.weight = make([]float64, r.count())
	for i := range r.weight {
		r.weight[i] = float64(r.first[i+1] - r.first[i])
	}
	return r
}

// count is the number of distinct rows, u.
func (r *rows) count() int { return len(r.first) - 1 }

// row returns row i of the matrix.
func (r *rows) row(i int32) []float32 { return r.x[int(i)*r.d : (int(i)+1)*r.d] }

// distinct returns distinct row i.
func (r *rows) distinct(i int) []float32 { return r.row(r.order[r.first[i]]) }

// copies returns the indices of distinct row i's copies.
func (r *rows) copies(i int) []int32 { return r.order[r.first[i]:r.first[i+1]] }

// expand turns the clusters of distinct rows into those of all rows.
func (r *rows) expand(of []int32) []int32 {
	assign := make([]int32, r.n)
	for i, c := range of {
		for _, j := range r.copies(i) {
			assign[j] = c
		}
	}
	return assign
}

// splitDuplicates gives each of the u ≤ k distinct rows a cluster of its own,
// and the remaining k−u clusters to further copies.
func (r *rows) splitDuplicates(k int) []int32 {
	assign := make([]int32, r.n)
	next := int32(r.count())
	for i := range r.count() {
		for c, j := range r.copies(i) {
			assign[j] = int32(i)
			if c > 0 && int(next) < k {
				assign[j] = next
				next++
			}
		}
	}
	return assign
}
