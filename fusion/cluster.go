package fusion

import (
	"context"
	"math"

	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// fused is the paper's method: the sub-MLPs are clustered, each cluster becomes
// one unit, its centroid, and P, the cluster sizes, stands for its copies:
// y = W2~·P·σ(W1~·x + b1~) + b2 (equation 5).
type fused struct{}

func (fused) Name() string { return "fusion" }

func (fused) compress(ctx context.Context, m *MLP, o Options) (*Block, error) {
	b, err := cluster(ctx, m, o)
	if err != nil {
		return nil, err
	}
	return b.keepSizes(), nil
}

// keepSizes makes P of the cluster sizes.
func (b *Block) keepSizes() *Block {
	b.Scale = make([]float32, len(b.Sizes))
	for k, n := range b.Sizes {
		b.Scale[k] = float32(n)
	}
	return b
}

// clustered is the paper's ablation of P: the same centroids, each of W1~, b1~
// and W2~ multiplied by the square root of the cluster size.
type clustered struct{}

func (clustered) Name() string { return "cluster" }

func (clustered) compress(ctx context.Context, m *MLP, o Options) (*Block, error) {
	b, err := cluster(ctx, m, o)
	if err != nil {
		return nil, err
	}
	return b.scaleRoots(), nil
}

// scaleRoots multiplies each unit's weights by the root of its cluster's size.
func (b *Block) scaleRoots() *Block {
	list, _ := b.parts()
	for _, t := range list {
		for i, n := range b.Sizes {
			s := float32(math.Sqrt(float64(n)))
			for k := range t.n {
				t.data[i*t.unit+k*t.step] *= s
			}
		}
	}
	return b
}

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
		return m.fuse(r.Assign, r.Sizes, o.Pool), nil
	}
	b := m.withUnits(r.Centroids, o.Width)
	b.Sizes, b.Assign, b.Inertia, b.Silhouette = r.Sizes, r.Assign, r.Inertia, r.Silhouette
	b.InputInertia = kmeans.Inertia(points, m.Width, d, make([]int32, m.Width), o.Pool)
	return b, nil
}

// fuse returns the block of the clusters' centroids, without P.
func (m *MLP) fuse(assign, sizes []int32, pool *kernel.Pool) *Block {
	x, d := m.SubMLPs()
	b := m.withUnits(centroids(x, d, assign, sizes), len(sizes))
	b.Sizes, b.Assign = sizes, assign
	b.Inertia = kmeans.Inertia(x, m.Width, d, assign, pool)
	b.InputInertia = kmeans.Inertia(x, m.Width, d, make([]int32, m.Width), pool)
	b.Silhouette, _ = kmeans.Silhouette(x, m.Width, d, assign, pool)
	return b
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
