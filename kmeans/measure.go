package kmeans

import (
	"fmt"
	"math"

	"mlpfusion/kernel"
)

// measure fills in what follows from the assignment, all of it from x in float64.
func (r *Result) measure(x []float32, n, d, k int, pool *kernel.Pool) {
	m := members(r.Assign, k)
	r.Sizes = make([]int32, k)
	for c := range k {
		r.Sizes[c] = int32(len(m.of(c)))
	}
	r.Centroids = make([]float32, k*d)
	r.ClusterInertia = make([]float64, k)
	pool.Run(k, &measureJob{x: x, d: d, members: m, centroids: r.Centroids, inertia: r.ClusterInertia, sum: make([]float64, pool.Workers()*d)})
	r.Inertia = 0
	for _, v := range r.ClusterInertia {
		r.Inertia += v
	}
}

// Inertia returns the sum of the squared distances of the n rows of the
// row-major n×d matrix x to the means of their clusters, in float64. assign holds
// each row's cluster, from 0 to n−1; sizes that disagree and values that are not
// finite are errors. A nil pool means one of GOMAXPROCS workers for this call.
func Inertia(x []float32, n, d int, assign []int32, pool *kernel.Pool) (float64, error) {
	if err := checkPartition(x, n, d, assign); err != nil {
		return 0, err
	}
	if pool == nil {
		pool = kernel.NewPool(0)
		defer pool.Close()
	}
	k := clusters(assign)
	inertia := make([]float64, k)
	pool.Run(k, &measureJob{x: x, d: d, members: members(assign, k), inertia: inertia, sum: make([]float64, pool.Workers()*d)})
	var s float64
	for _, v := range inertia {
		s += v
	}
	return s, nil
}

// checkPartition reports rows, or clusters of them, that cannot be measured.
func checkPartition(x []float32, n, d int, assign []int32) error {
	if err := checkRows(x, n, d); err != nil {
		return err
	}
	if len(assign) != n {
		return fmt.Errorf("kmeans: assign: expected a cluster for each of the %d rows, found %d", n, len(assign))
	}
	for i, c := range assign {
		if c < 0 || int(c) >= n {
			return fmt.Errorf("kmeans: assign[%d]: expected a cluster from 0 to %d, found %d", i, n-1, c)
		}
	}
	return nil
}

// measureJob computes the centroid (when wanted) and inertia of each cluster.
type measureJob struct {
	x         []float32
	d         int
	members   *memberLists
	centroids []float32
	inertia   []float64
	sum       []float64 // workers×d
}

func (m *measureJob) Do(c, w int) {
	mine := m.members.of(c)
	if len(mine) == 0 {
		return
	}
	mean := m.sum[w*m.d : (w+1)*m.d]
	// Starting from the first row rather than 0 keeps the sign of a −0.
	for j, v := range m.x[int(mine[0])*m.d : (int(mine[0])+1)*m.d] {
		mean[j] = float64(v)
	}
	for _, i := range mine[1:] {
		for j, v := range m.x[int(i)*m.d : (int(i)+1)*m.d] {
			mean[j] += float64(v)
		}
	}
	for j := range mean {
		mean[j] /= float64(len(mine))
	}
	var s float64
	for _, i := range mine {
		for j, v := range m.x[int(i)*m.d : (int(i)+1)*m.d] {
			e := float64(v) - mean[j]
			s += e * e
		}
	}
	m.inertia[c] = s
	if m.centroids != nil {
		for j, v := range mean {
			m.centroids[c*m.d+j] = float32(v)
		}
	}
}

// memberLists holds the rows of each cluster, ascending.
type memberLists struct {
	rows  []int32 // n, by cluster, and ahead more
	first []int32 // k+1
}

func members(assign []int32, k int) *memberLists {
	m := &memberLists{rows: make([]int32, len(assign)+ahead), first: make([]int32, k+1)}
	m.fill(assign)
	return m
}

func (m *memberLists) fill(assign []int32) {
	clear(m.first)
	for _, c := range assign {
		m.first[c]++
	}
	sum := int32(0)
	for c, size := range m.first {
		sum += size
		m.first[c] = sum
	}
	// Filling from the back moves each first from its list's end to its start.
	for i := len(assign) - 1; i >= 0; i-- {
		c := assign[i]
		m.first[c]--
		m.rows[m.first[c]] = int32(i)
	}
}

func (m *memberLists) of(c int) []int32 { return m.rows[m.first[c]:m.first[c+1]] }

// clusters returns the number of clusters: the largest name plus one.
func clusters(assign []int32) int {
	k := int32(0)
	for _, c := range assign {
		k = max(k, c+1)
	}
	return int(k)
}

// Silhouette returns the mean silhouette of a partition and each row's own
// (Rousseeuw 1987): (b−a)/max(a, b), where a is the row's mean distance to the
// other rows of its cluster and b the least mean distance to the rows of another
// cluster. It is 0 for a row that is alone in its cluster, and for all rows when
// there is one cluster. x is n×d row-major, assign holds each row's cluster, from 0
// to n−1; sizes that disagree and values that are not finite are errors. A nil pool
// means one of GOMAXPROCS workers for this call.
func Silhouette(x []float32, n, d int, assign []int32, pool *kernel.Pool) (mean float64, each []float64, err error) {
	if err := checkPartition(x, n, d, assign); err != nil {
		return 0, nil, err
	}
	if pool == nil {
		pool = kernel.NewPool(0)
		defer pool.Close()
	}
	rows := distinctRows(x, n, d)
	mean, each = silhouette(rows, newGram(rows, pool), assign, pool)
	return mean, each, nil
}

func silhouette(rows *rows, g *gram, assign []int32, pool *kernel.Pool) (mean float64, each []float64) {
	k := clusters(assign)
	job := &silhouetteJob{rows: rows, g: g, assign: assign, each: make([]float64, rows.n), sizes: make([]float64, k), sums: make([]float64, pool.Workers()*k)}
	for _, c := range assign {
		job.sizes[c]++
	}
	pool.Run(rows.count(), job)
	for _, v := range job.each {
		mean += v
	}
	return mean / float64(rows.n), job.each
}

// silhouetteJob handles one distinct row: its copies may be in different
// clusters, but are at the same distances from everything.
type silhouetteJob struct {
	rows   *rows
	g      *gram
	assign []int32
	each   []float64
	sizes  []float64 // k
	sums   []float64 // workers×k: summed distances to each cluster
}

func (s *silhouetteJob) Do(i, w int) {
	k := len(s.sizes)
	sums := s.sums[w*k : (w+1)*k]
	clear(sums)
	for j := range s.rows.count() {
		if j == i {
			continue
		}
		dist := math.Sqrt(s.g.distance2(i, j))
		for _, c := range s.rows.copies(j) {
			sums[s.assign[c]] += dist
		}
	}
	for _, row := range s.rows.copies(i) {
		own := s.assign[row]
		if s.sizes[own] == 1 {
			continue
		}
		a, b := sums[own]/(s.sizes[own]-1), math.Inf(1)
		for c, sum := range sums {
			if int32(c) != own && s.sizes[c] > 0 {
				b = min(b, sum/s.sizes[c])
			}
		}
		if m := max(a, b); m > 0 && !math.IsInf(b, 1) {
			s.each[row] = (b - a) / m
		}
	}
}
