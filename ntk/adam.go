package ntk

import (
	"context"
	"math"

	"mlpfusion/kernel"
)

// adam returns K_ij = ⟨g_i, sign(g_j)⟩, panel by panel: in whole numbers where
// that is faster, else in float32.
func adam(ctx context.Context, pool *kernel.Pool, layers []layer, offsets []int32, whole bool, progress func(float64)) ([]float32, error) {
	n, w := len(offsets)-1, width(layers)
	k := make([]float32, n*n)
	p := &panel{pool: pool, offsets: offsets}
	if !whole {
		p.data, p.signs = make([]float32, n*w), make([]float32, n*w)
		return k, eachPanel(ctx, layers, progress, func(l *layer, i int) {
			m := p.build(l, i)
			timesTransposed(pool, p.data, p.signs, n, m, k)
		})
	}
	p.digits = newDigits(n, w)
	p.work = make([][]float32, pool.Workers())
	product := &signProduct{digits: p.digits, n: n, k: k, out: make([][]int32, pool.Workers())}
	for i := range p.work {
		p.work[i], product.out[i] = make([]float32, w+digitWidth), make([]int32, 4*digitColumns)
	}
	return k, eachPanel(ctx, layers, progress, func(l *layer, i int) {
		p.build(l, i)
		product.add(pool)
	})
}

// eachPanel calls f for every panel of every layer.
func eachPanel(ctx context.Context, layers []layer, progress func(float64), f func(l *layer, i int)) error {
	total, done := 0, 0
	for i := range layers {
		total += layers[i].panels()
	}
	for i := range layers {
		for j := range layers[i].panels() {
			if err := ctx.Err(); err != nil {
				return err
			}
			f(&layers[i], j)
			done++
			progress(float64(done) / float64(total))
		}
	}
	return nil
}

// timesTransposed adds A·Bᵀ, both n×m, to the n×n matrix k.
func timesTransposed(pool *kernel.Pool, a, b []float32, n, m int, k []float32) {
	pool.Gemm(kernel.FP32, n, n, m, kernel.Mat{Data: a, Stride: m}, kernel.Mat{Data: b, Stride: m, T: true}, k, n, kernel.Epilogue{Accumulate: true})
}

// singleAdam is adam where every example has one token. G_i = δ_i·x_iᵀ then has
// rank one, sign(G_j) = sign(δ_j)·sign(x_j)ᵀ, and a layer's kernel is the product
// of two small ones, element by element.
func singleAdam(pool *kernel.Pool, layers []layer, n int) []float32 {
	k := make([]float32, n*n)
	for i := range layers {
		l := &layers[i]
		x, d := make([]float32, n*n), make([]float32, n*n)
		kernelOfRows := func(rows []float32, m int, k []float32) {
			s := make([]float32, n*m)
			signs(s, rows[:n*m])
			timesTransposed(pool, rows, s, n, m, k)
		}
		kernelOfRows(l.x, l.in, x)
		kernelOfRows(l.d, l.out, d)
		if l.bias { // a bias is a weight whose input is 1
			for j := range x {
				x[j]++
			}
		}
		kernel.Mul(x, d)
		kernel.Add(k, x)
	}
	return k
}

// signs writes the sign of each element of x to s: −1, 0 or 1.
func signs(s, x []float32) {
	s = s[:len(x)]
	for i, v := range x {
		b := math.Float32bits(v)
		r := b&(1<<31) | math.Float32bits(1)
		if b<<1 == 0 {
			r = 0
		}
		s[i] = math.Float32frombits(r)
	}
}
