// Package kmeans clusters the rows of a dense float32 matrix. It knows nothing
// of models.
//
// It is built for few rows a cluster and many columns (four rows, thousands of
// columns), where the Gram matrix of the rows costs less than a handful of
// Lloyd passes and makes everything after it cheap and exact: distances between
// rows, rows and centroids, and centroids are sums of its entries, so no step
// touches the columns again until the final centroids are taken in float64.
//
// Rows that are equal are one row with a weight, and rows are worked on in
// lexicographic order, so that Cluster finds the same partition for any order
// of the rows, and the same bytes for any number of workers.
package kmeans

import (
	"fmt"
	"math"
	"runtime"

	"mlpfusion/kernel"
)

// Algorithm names a way to cluster.
type Algorithm string

const (
	// AlgorithmKMeans is Lloyd's algorithm from greedy k-means++ starts, the best of
	// Options.Restarts: what the paper's code runs.
	AlgorithmKMeans Algorithm = "kmeans"
	// AlgorithmWard is agglomerative clustering that merges where the inertia grows least.
	AlgorithmWard Algorithm = "ward"
	// AlgorithmBest is Ward followed by the local search that Options.Effort sizes: the
	// lowest inertia we can reach.
	AlgorithmBest Algorithm = "best"
)

// Options of Cluster. K and Algorithm are required.
type Options struct {
	K         int       // number of clusters, 1 … n
	Algorithm Algorithm // the way; see its constants
	Restarts  int       // kmeans: number of starts; 0 means 30, as in the paper's code
	MaxIter   int       // kmeans: passes of each start at most; 0 means 300
	Tol       float64   // kmeans: stop when the squared shift of all centroids is at most Tol × the mean variance of a column; 0 runs until no row moves
	Effort    int       // best: size of the local search, in rounds; 0 means 1, and 10 is about ten times the work
	Seed      uint64    // of every random choice
	// Silhouette asks for Result.Silhouette, which costs less here, from the same
	// Gram matrix, than by the function of that name.
	Silhouette bool
	Pool       *kernel.Pool
	Progress   func(done, total int) // when not nil, called now and then by the calling goroutine
}

// Result is a partition of n rows into K clusters, none of them empty. Clusters
// are numbered in the order of their first rows.
type Result struct {
	Assign         []int32   // n: the cluster of each row
	Sizes          []int32   // K: the number of rows of each cluster
	Centroids      []float32 // K×d row-major: means, summed in float64
	Inertia        float64   // sum of the squared distances of all rows to their cluster's mean, from x, in float64
	ClusterInertia []float64 // K: each cluster's share of Inertia
	Silhouette     float64   // the rows' mean, see the function; where asked for
	Iterations     int       // passes over all rows: of the best start (kmeans), of the local search (best), 0 for ward
}

// Cluster partitions the n rows of the row-major n×d matrix x. It returns an
// error, naming the row, for values that are not finite, and for options out of
// range. A nil Pool means one of GOMAXPROCS workers for this call. Memory beside
// x is 4·n² bytes and small change.
func Cluster(x []float32, n, d int, o Options) (*Result, error) {
	if err := checkRows(x, n, d); err != nil {
		return nil, err
	}
	if o.K < 1 || o.K > n {
		return nil, fmt.Errorf("kmeans: K: expected 1 to the %d rows, found %d", n, o.K)
	}
	for _, c := range []struct {
		name  string
		value float64
	}{{"Restarts", float64(o.Restarts)}, {"MaxIter", float64(o.MaxIter)}, {"Effort", float64(o.Effort)}, {"Tol", o.Tol}} {
		if !(c.value >= 0) {
			return nil, fmt.Errorf("kmeans: %s: expected at least 0, found %g", c.name, c.value)
		}
	}
	if o.Restarts == 0 {
		o.Restarts = 30
	}
	if o.MaxIter == 0 {
		o.MaxIter = 300
	}
	if o.Effort == 0 {
		o.Effort = 1
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	if o.Pool == nil {
		o.Pool = kernel.NewPool(0)
		defer o.Pool.Close()
	}
	var partition func(*gram, Options) ([]int32, int)
	switch o.Algorithm {
	case AlgorithmKMeans:
		partition = lloydRestarts
	case AlgorithmWard:
		partition = func(g *gram, o Options) ([]int32, int) { return newTree(g).Cut(o.K), 0 }
	case AlgorithmBest:
		partition = best
	default:
		return nil, fmt.Errorf("kmeans: Algorithm: expected %q, %q or %q, found %q", AlgorithmKMeans, AlgorithmWard, AlgorithmBest, o.Algorithm)
	}
	rows := distinctRows(x, n, d)
	r := &Result{}
	if u := rows.count(); o.K >= u {
		r.Assign = renumber(rows.splitDuplicates(o.K), o.K)
		if o.Silhouette {
			r.Silhouette, _ = silhouette(rows, newGram(rows, o.Pool), r.Assign, o.Pool)
		}
	} else {
		g := newGram(rows, o.Pool)
		var of []int32
		of, r.Iterations = partition(g, o)
		r.Assign = renumber(rows.expand(of), o.K)
		if o.Silhouette {
			r.Silhouette, _ = silhouette(rows, g, r.Assign, o.Pool)
		}
		if u > 4096 {
			runtime.GC() // the centroids take the place of the Gram matrix
		}
	}
	r.measure(x, n, d, o.K, o.Pool)
	return r, nil
}

// checkRows refuses shapes that do not fit and values that are not finite.
func checkRows(x []float32, n, d int) error {
	if n < 1 || d < 1 || n > math.MaxInt32 || len(x)/d < n || len(x) != n*d {
		return fmt.Errorf("kmeans: expected the values of %d rows × %d columns, both at least 1, found %d", n, d, len(x))
	}
	for i := range n {
		// v−v is 0 when v is finite and NaN otherwise, and a sum keeps a NaN.
		var s float32
		for _, v := range x[i*d : (i+1)*d] {
			s += v - v
		}
		if s != 0 {
			for j, v := range x[i*d : (i+1)*d] {
				if v-v != 0 {
					return fmt.Errorf("kmeans: row %d, column %d: expected a finite value, found %v", i, j, v)
				}
			}
		}
	}
	return nil
}

// renumber numbers the clusters in the order of their first rows.
func renumber(assign []int32, k int) []int32 {
	name := make([]int32, k)
	next := int32(0)
	for i, c := range assign {
		if name[c] == 0 {
			next++
			name[c] = next
		}
		assign[i] = name[c] - 1
	}
	return assign
}
