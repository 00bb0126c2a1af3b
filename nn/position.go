package nn

import "math"

// PositionBias is T5's relative position bias (arXiv 1910.10683, section 2.1): a
// learned number for each head and each bucket of distances between a query and
// a key, added to the attention scores.
type PositionBias struct {
	Table *Weight // (buckets × heads)
	// Bidirectional gives the keys behind a query half of the buckets; otherwise
	// they share the bucket of distance 0.
	Bidirectional bool
	MaxDistance   int // from here on all distances share a bucket
}

// bucket returns the bucket of a key's place less a query's. Small distances have
// a bucket each, larger ones share buckets that widen logarithmically. The
// logarithm is rounded to float32 as in PyTorch: at a bucket's edge it decides.
func (b *PositionBias) bucket(distance int) int {
	buckets, first := b.Table.Rows, 0
	switch {
	case b.Bidirectional:
		buckets /= 2
		if distance > 0 {
			first = buckets
		} else {
			distance = -distance
		}
	default:
		distance = max(0, -distance)
	}
	exact := buckets / 2
	if distance < exact {
		return first + distance
	}
	ratio := float32(math.Log(float64(float32(distance) / float32(exact))))
	ratio = ratio / float32(math.Log(float64(b.MaxDistance)/float64(exact))) * float32(buckets-exact)
	return first + min(exact+int(ratio), buckets-1)
}

// spread writes the bias of each head and distance: heads × (2·longest−1), the
// distances from 1−longest on.
func (b *PositionBias) spread(dst []float32, longest int) {
	heads, n := b.Table.Cols, 2*longest-1
	for d := range n {
		row := b.Table.Data[b.bucket(d+1-longest)*heads:]
		for h := range heads {
			dst[h*n+d] = row[h]
		}
	}
}

// gather adds to the table's gradient those by distance of each sequence and
// head, (sequences × heads × (2·longest−1)), in their order.
func (b *PositionBias) gather(grads []float32, longest int) {
	heads, n := b.Table.Cols, 2*longest-1
	grad, add := b.Table.gradient()
	if !add {
		clear(grad)
	}
	for i := range len(grads) / n {
		for d, g := range grads[i*n : (i+1)*n] {
			if g != 0 {
				grad[b.bucket(d+1-longest)*heads+i%heads] += g
			}
		}
	}
}
