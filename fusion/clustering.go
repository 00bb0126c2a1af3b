package fusion

import (
	"context"

	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// cluster returns the block of the o.Width centroids.
func cluster(ctx context.Context, m *MLP, o Options) (*Block, error) {
	if o.Select {
		return selected(ctx, m, o)
	}
	points, d := m.SubMLPs()
	if o.Weighted {
		if err := weigh(ctx, m, points, o); err != nil {
			return nil, err
		}
	} else if o.Spend && o.Inputs == nil {
		m.drop()
	}
	algorithm := o.Clustering
	if algorithm == "" {
		algorithm = kmeans.AlgorithmBest
	}
	r, err := kmeans.Cluster(points, m.Width, d, kmeans.Options{
		K: o.Width, Algorithm: algorithm, Restarts: o.Restarts, Effort: o.Effort, Seed: o.Seed, Silhouette: !o.Weighted, Pool: o.Pool,
	})
	if err != nil {
		return nil, err
	}
	if o.Weighted { // the centroids are means of the units as they are
		return m.fuse(r.Assign, r.Sizes, o.Pool)
	}
	b := m.withUnits(r.Centroids, o.Width)
	b.Sizes, b.Assign, b.Inertia, b.Silhouette = r.Sizes, r.Assign, r.Inertia, r.Silhouette
	b.InputInertia, err = kmeans.Inertia(points, m.Width, d, make([]int32, m.Width), o.Pool)
	return b, err
}

// fuse returns the block of the clusters' centroids, without P.
func (m *MLP) fuse(assign, sizes []int32, pool *kernel.Pool) (b *Block, err error) {
	x, d := m.SubMLPs()
	b = m.withUnits(centroids(x, d, assign, sizes), len(sizes))
	b.Sizes, b.Assign = sizes, assign
	if b.Inertia, err = kmeans.Inertia(x, m.Width, d, assign, pool); err != nil {
		return nil, err
	}
	if b.InputInertia, err = kmeans.Inertia(x, m.Width, d, make([]int32, m.Width), pool); err != nil {
		return nil, err
	}
	b.Silhouette, _, err = kmeans.Silhouette(x, m.Width, d, assign, pool)
	return b, err
}

// centroids returns the means of x's rows by cluster, len(sizes)×d, summed in
// float64.
func centroids(x []float32, d int, assign, sizes []int32) []float32 {
	sum := make([]float64, len(sizes)*d)
	for i, k := range assign {
		row := sum[int(k)*d:]
		for j, v := range x[i*d : (i+1)*d] {
			row[j] += float64(v)
		}
	}
	c := make([]float32, len(sum))
	for k, n := range sizes {
		for j := range d {
			c[k*d+j] = float32(sum[k*d+j] / float64(n))
		}
	}
	return c
}
