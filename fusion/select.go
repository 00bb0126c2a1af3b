package fusion

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"

	"mlpfusion/kernel"
)

// pick chooses the o.Width hidden units whose activations explain the block's
// output best: greedily, each time the unit that takes most off the squared
// error that the best down projection of the units chosen so far would leave on
// the calibration inputs (orthogonal least squares). Ties go to the lower unit.
//
// With G the activations' Gram matrix and Z = G·W2ᵀ their products with the
// output, unit i would take off ‖z_i‖²/G_ii; choosing it removes its direction
// from all the others. That is a pivoted Cholesky factorisation of G, of which
// only the c chosen columns are ever computed: p_I·c²/2 operations, and
// 2·p_I·p a unit for Z.
//
// unexplained[k] is the squared error that k units leave, about the mean output
// where there is an output bias: the whole curve of error by width.
func pick(ctx context.Context, m *MLP, o Options) (chosen []int, unexplained []float64, err error) {
	s := newSums(m.Width, m.Hidden)
	t, want := o.teacher(m), nothing
	if t.paired() {
		want = outputs
	}
	if err := s.collect(ctx, t, &Block{MLP: *m}, want); err != nil {
		return nil, nil, err
	}
	n, p, c := s.n, s.out, o.Width
	gram := mat.NewSymDense(n, s.hh)
	var z []float32
	total := s.ee
	if t.paired() {
		z = make([]float32, len(s.he))
		for i, v := range s.he {
			z[i] = float32(v)
		}
	} else { // the outputs are W2·h: no need to stream them
		z = outputProducts(m, gram, o.Pool)
		for i := range n {
			for r := range p {
				total += float64(m.Down[r*n+i]) * float64(z[i*p+r])
			}
		}
	}
	unexplained = append(unexplained, total)

	left := make([]float64, n) // G_ii less what is explained
	var floor float64
	for i := range left {
		left[i] = gram.At(i, i)
		floor += left[i] / float64(n)
	}
	// With less left than this a unit is a combination of the chosen ones, as far
	// as float32 can tell, and takes nothing off.
	floor *= 1e-6
	gain := make([]float64, n)
	rate := func(i int) {
		gain[i] = 0
		if left[i] > floor {
			gain[i] = kernel.SumSquares(z[i*p:(i+1)*p]) / left[i]
		}
	}
	for i := range n {
		rate(i)
	}
	factor := make([]float64, n*c) // row i: unit i in terms of the chosen ones
	taken := make([]bool, n)
	const band = 64
	for k := range c {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		best := -1
		for i, g := range gain {
			if !taken[i] && (best < 0 || g > gain[best]) {
				best = i
			}
		}
		chosen = append(chosen, best)
		taken[best] = true
		total = max(total-gain[best], 0)
		unexplained = append(unexplained, total)
		pivot := left[best]
		if pivot <= floor {
			continue // nothing is left to explain; every unit that follows will do
		}
		zb := slices.Clone(z[best*p : (best+1)*p])
		fb := slices.Clone(factor[best*c : best*c+k])
		o.Pool.Run((n+band-1)/band, rowJob(func(b int) {
			for i := b * band; i < min(n, (b+1)*band); i++ {
				if taken[i] {
					continue
				}
				r := gram.At(i, best) - floats.Dot(factor[i*c:i*c+k], fb)
				f := r / pivot
				kernel.Axpy(float32(-f), zb, z[i*p:(i+1)*p])
				factor[i*c+k] = r / math.Sqrt(pivot)
				left[i] -= r * f
				rate(i)
			}
		}))
	}
	return chosen, unexplained, nil
}

// outputProducts returns Z = G·W2ᵀ, to float32's precision.
func outputProducts(m *MLP, gram *mat.SymDense, pool *kernel.Pool) []float32 {
	n, p := m.Width, m.Hidden
	g, product := make([]float32, n*n), make([]float32, n*p)
	for i := range n {
		for j := range n {
			g[i*n+j] = float32(gram.At(i, j))
		}
	}
	pool.Gemm(kernel.FP32, n, p, n, kernel.Mat{Data: g, Stride: n}, kernel.Mat{Data: m.Down, Stride: n, T: true}, product, p, kernel.Epilogue{})
	return product
}

// selected returns the block of the picked units: each keeps its own gate and up
// rows, and is the centre of a cluster whose mean is its down column, so that
// the block, with P, is a fusion before any refit.
func selected(ctx context.Context, m *MLP, o Options) (*Block, error) {
	chosen, _, err := pick(ctx, m, o)
	if err != nil {
		return nil, err
	}
	assign, sizes, err := around(ctx, m, chosen, o)
	if err != nil {
		return nil, err
	}
	b, err := m.fuse(assign, sizes, o.Pool)
	if err != nil {
		return nil, err
	}
	own := m.keep(chosen)
	b.Gate, b.GateBias, b.Up, b.UpBias = own.Gate, own.GateBias, own.Up, own.UpBias
	return b, nil
}

// around makes one cluster of each chosen unit: every other unit joins the one
// whose direction in weighted sub-MLP space is nearest its own. Directions,
// because by distance nearly all the small units would join the smallest centre.
func around(ctx context.Context, m *MLP, chosen []int, o Options) (assign, sizes []int32, err error) {
	x, d := m.SubMLPs()
	if err := weigh(ctx, m, x, o); err != nil {
		return nil, nil, err
	}
	for i := range m.Width { // to length 1
		row := x[i*d : (i+1)*d]
		if s := kernel.SumSquares(row); s > 0 {
			scale := float32(1 / math.Sqrt(s))
			for k := range row {
				row[k] *= scale
			}
		}
	}
	c := len(chosen)
	centre := make([]float32, 0, c*d)
	for _, i := range chosen {
		centre = append(centre, x[i*d:(i+1)*d]...)
	}
	assign = make([]int32, m.Width)
	sizes = make([]int32, c)
	const band = 256
	cosines := make([]float32, min(band, m.Width)*c)
	for i := 0; i < m.Width; i += band {
		rows := min(band, m.Width-i)
		o.Pool.Gemm(kernel.FP32, rows, c, d, kernel.Mat{Data: x[i*d:], Stride: d}, kernel.Mat{Data: centre, Stride: d, T: true},
			cosines, c, kernel.Epilogue{})
		for r := range rows {
			row := cosines[r*c : (r+1)*c]
			best := 0
			for k, v := range row {
				if v > row[best] {
					best = k
				}
			}
			assign[i+r] = int32(best)
		}
	}
	for k, i := range chosen { // also where two chosen units are alike
		assign[i] = int32(k)
	}
	for _, k := range assign {
		sizes[k]++
	}
	return assign, sizes, nil
}
