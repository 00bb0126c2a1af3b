package fusion

import (
	"context"
	"math"
)

// cluster is the paper's ablation of P: the same centroids as fusion's, each of
// W1~, b1~ and W2~ multiplied by the square root of the cluster size.
func init() {
	register(Method{Name: "cluster", Rank: 3, About: "the same means times the root of the cluster size, without P",
		Clusters: true, Units: true, seeded: true, block: clustered})
}

func clustered(ctx context.Context, m *MLP, o Options) (*Block, error) {
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
