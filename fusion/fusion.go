package fusion

import "context"

// fusion is the paper's method: the sub-MLPs are clustered, each cluster becomes
// one unit, its centroid, and P, the cluster sizes, stands for its copies:
// y = W2~·P·σ(W1~·x + b1~) + b2 (equation 5).
func init() {
	register(Method{Name: "fusion", Rank: 1, About: "the paper's: clusters of units become their means, with P, the cluster sizes",
		Clusters: true, KeepsP: true, Units: true, seeded: true, block: fused})
}

func fused(ctx context.Context, m *MLP, o Options) (*Block, error) {
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
