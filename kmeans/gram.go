package kmeans

import (
	"math"

	"mlpfusion/kernel"
)

// gram holds the inner products of distinct rows, from which all distances
// follow: ‖x_i − x_j‖² = G_ii + G_jj − 2·G_ij.
type gram struct {
	n       int // distinct rows
	copies  int // rows
	columns int
	stride  int
	at      []float32 // n×n with a stride, and lanes more: G, symmetric; the diagonal is that of norm
	norm    []float64 // n: G_ii
	weight  []float64 // n: the number of equal rows that row i stands for
	unit    float64   // a squared distance of 1 in G is this much in the matrix
	pool    *kernel.Pool
}

// block is the edge of the square pieces G is built from; a piece reads two
// panels of block rows.
const block = 512

// newGram computes XXᵀ of the distinct rows after taking off the mean of all
// rows: distances do not change, and inner products lose no digits to a common
// offset. Rows are scaled by a power of two, which is exact, so that no square
// overflows. Only one triangle is computed; panels of centred rows are the only
// memory beside G itself.
func newGram(r *rows, pool *kernel.Pool) *gram {
	n, d := r.count(), r.d
	_, exp := math.Frexp(float64(r.largest))
	scale := math.Ldexp(1, -exp)
	// An odd number of cache lines, so that a column's elements spread over the
	// cache's sets.
	stride := 16 * ((n+15)/16 | 1)
	g := &gram{n: n, stride: stride, copies: r.n, columns: d, at: make([]float32, n*stride+lanes), norm: make([]float64, n), weight: r.weight, unit: 1 / (scale * scale), pool: pool}
	left := &panel{rows: r, at: make([]float32, min(n, block)*d), norm: g.norm, scale: scale}
	right := &panel{rows: r, at: make([]float32, min(n, block)*d), norm: g.norm, scale: scale}
	for i0 := 0; i0 < n; i0 += block {
		rows := min(block, n-i0)
		left.from = i0
		pool.Run(rows, left)
		for j0 := 0; j0 <= i0; j0 += block {
			b := left
			if j0 < i0 {
				b = right
				b.from = j0
				pool.Run(block, b)
			}
			cols := min(block, n-j0)
			pool.Gemm(kernel.FP32, rows, cols, d,
				kernel.Mat{Data: left.at, Stride: d}, kernel.Mat{Data: b.at, Stride: d, T: true},
				g.at[i0*stride+j0:], stride, kernel.Epilogue{})
		}
	}
	for i, v := range g.norm {
		g.at[i*stride+i] = float32(v)
	}
	g.mirror()
	return g
}

// mirror copies the lower triangle to the upper one.
func (g *gram) mirror() {
	g.pool.Run((g.n+mirrorRows-1)/mirrorRows, (*mirror)(g))
}

const mirrorRows = 64

type mirror gram

// Do fills rows i·mirrorRows … of the upper triangle, square by square.
func (g *mirror) Do(i, _ int) {
	n, stride, r0 := g.n, g.stride, i*mirrorRows
	r1 := min(n, r0+mirrorRows)
	for c0 := r0; c0 < n; c0 += mirrorRows {
		for c := c0; c < min(n, c0+mirrorRows); c++ {
			for r := r0; r < min(r1, c); r++ {
				g.at[r*stride+c] = g.at[c*stride+r]
			}
		}
	}
}

// row returns G's row i.
func (g *gram) row(i int) []float32 { return g.at[i*g.stride : i*g.stride+g.n] }

// distance2 returns ‖x_i − x_j‖², never negative.
func (g *gram) distance2(i, j int) float64 {
	return max(0, g.norm[i]+g.norm[j]-2*float64(g.at[i*g.stride+j]))
}

// panel holds centred distinct rows, from the given one on.
type panel struct {
	rows  *rows
	from  int
	at    []float32
	norm  []float64
	scale float64
}

// Do fills the panel's row i.
func (p *panel) Do(i, _ int) {
	d := p.rows.d
	to := p.at[i*d : (i+1)*d]
	var s float64
	for j, v := range p.rows.distinct(p.from + i) {
		c := float32((float64(v) - p.rows.mean[j]) * p.scale)
		to[j] = c
		s += float64(c) * float64(c)
	}
	p.norm[p.from+i] = s
}

// totalInertia is that of one cluster of all rows.
func (g *gram) totalInertia() float64 {
	var s float64
	for i, w := range g.weight {
		s += w * g.norm[i]
	}
	return s
}
