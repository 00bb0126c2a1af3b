package kmeans

import "mlpfusion/kernel"

// lanes is the number of rows that a cluster is offered to at once, in whole
// vector registers: 64 at a time.
const lanes = 128

// ahead is how many rows in advance memory is asked for.
const ahead = 8

// offer puts one cluster before lanes rows of G: each row takes it, in place of
// the best it was offered before, if its cost
//
//	share·(norm_i + scale·Σ_{j∈rows} coef_j·G_ji + own) − temperature·draw_i
//
// is lower, unless it is the row's own cluster. Slices without a length of their
// own hold lanes values; there may be fewer rows than lanes, and what the other
// lanes hold has no meaning.
type offer struct {
	name   int32
	rows   []int32   // of the cluster; ahead more can be read after them
	coef   []float32 // n
	g      []float32 // G from the lanes' column on
	stride int       // of g
	norm   []float32
	draw   []float32
	of     []int32
	cost   []float32 // the best so far,
	to     []int32   // the cluster it is for,
	luck   []float32 // and its draw

	scale, own, share, temperature float32

	products [lanes]float32 // of the cluster's rows; portable's memory
}

func (o *offer) put() {
	if kernel.Has(kernel.AVX2) {
		offerAVX2(o)
	} else {
		o.portable()
	}
}

func (o *offer) portable() {
	products := o.products[:]
	clear(products)
	for _, j := range o.rows {
		from := int(j) * o.stride
		kernel.Axpy(o.coef[j], o.g[from:from+lanes], products)
	}
	norm, draw, of, cost, to, luck := o.norm[:lanes], o.draw[:lanes], o.of[:lanes], o.cost[:lanes], o.to[:lanes], o.luck[:lanes]
	for i, v := range products {
		c := o.share*(norm[i]+o.scale*v+o.own) - o.temperature*draw[i]
		if c < cost[i] && of[i] != o.name {
			cost[i], to[i], luck[i] = c, o.name, draw[i]
		}
	}
}
