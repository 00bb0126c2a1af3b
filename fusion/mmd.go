package fusion

import (
	"context"
	"math"

	"mlpfusion/kernel"
)

// mmd fits c sub-MLPs so that their distribution is that of the p_I original
// ones, by descending the squared maximum mean discrepancy
//
//	mean k(x,x') − 2·mean k(x,y) + mean k(y,y'),  k(d) = Σ_b exp(−d/h_b)
//
// with five bandwidths h_b: the mean distance between two different rows of X
// and Y together, times 1/4, 1/2, 1, 2, 4, renewed each step and held fixed in
// the gradient. As the authors do it: distances are not squared; the start is c
// random rows; 100 steps of AdamW at 1e-2 with PyTorch's defaults (β 0.9 and
// 0.999, ε 1e-8, decay 0.01); and all of W1~, b1~, W2~ and b2 are multiplied by
// sqrt(p_I/c) at the end.
func init() {
	register(Method{Name: "mmd", Rank: 6, About: "units moved by descent until they are distributed as the original ones",
		Units: true, seeded: true, block: matched})
}

const mmdSteps = 100

func matched(ctx context.Context, m *MLP, o Options) (*Block, error) {
	x, d := m.SubMLPs()
	start := random(o.Seed).Perm(m.Width)[:o.Width]
	f := newMMDFit(x, m.Width, d, start, o.Pool)
	for range mmdSteps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f.step()
	}
	return m.mmdBlock(f.y, o.Width), nil
}

// mmdBlock returns the block of the fitted rows y, everything scaled.
func (m *MLP) mmdBlock(y []float32, c int) *Block {
	b := m.withUnits(y, c)
	scale := float32(math.Sqrt(float64(m.Width) / float64(c)))
	for _, t := range [][]float32{b.Gate, b.GateBias, b.Up, b.UpBias, b.Down, b.DownBias} {
		for i := range t {
			t[i] *= scale
		}
	}
	return b
}

// mmdFit is the state of the descent: the rows y (m×d) moving towards the
// distribution of the rows x (n×d).
type mmdFit struct {
	pool    *kernel.Pool
	x, y    []float32
	n, m, d int
	xx, yy  []float32 // squared norms
	sumXX   float64   // of the distances between rows of x, both ways
	cross   []float32 // m×n: distances y–x, then the weights of the gradient
	inner   []float32 // m×m: distances y–y, then the weights
	grad    []float32
	m1, m2  []float32
	sums    []float64 // of each row of the distances computed last
	adam    kernel.AdamW
	b1, b2  float64 // β1^t, β2^t
	bw      float64 // the smallest bandwidth of this step
}

func newMMDFit(x []float32, n, d int, start []int, pool *kernel.Pool) *mmdFit {
	m := len(start)
	f := &mmdFit{
		pool: pool, x: x, n: n, m: m, d: d,
		cross: make([]float32, m*n), inner: make([]float32, m*m),
		y: make([]float32, 0, m*d), grad: make([]float32, m*d), m1: make([]float32, m*d), m2: make([]float32, m*d),
		xx: squaredNorms(x, n, d), yy: make([]float32, m), sums: make([]float64, max(n, m)),
		adam: kernel.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, GradScale: 1},
		b1:   1, b2: 1,
	}
	for _, i := range start {
		f.y = append(f.y, x[i*d:(i+1)*d]...)
	}
	f.eachXX(func(dist float64) { f.sumXX += dist })
	return f
}

// eachXX calls f with every distance between two rows of x, both ways and the
// zeros of the diagonal too, a band of rows at a time to bound memory.
func (f *mmdFit) eachXX(visit func(dist float64)) {
	const band = 256
	dist := make([]float32, min(band, f.n)*f.n)
	for i := 0; i < f.n; i += band {
		rows := min(band, f.n-i)
		f.distances(f.x[i*f.d:], f.xx[i:], rows, f.x, f.xx, f.n, dist, i)
		for _, v := range dist[:rows*f.n] {
			visit(float64(v))
		}
	}
}

func squaredNorms(x []float32, n, d int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(kernel.SumSquares(x[i*d : (i+1)*d]))
	}
	return s
}

// distances writes ‖a_i − b_j‖ to out (na×nb). When a is rows self… of b,
// self ≥ 0 and the distance of a row to itself is 0 exactly.
func (f *mmdFit) distances(a, aa []float32, na int, b, bb []float32, nb int, out []float32, self int) {
	f.pool.Gemm(kernel.FP32, na, nb, f.d, kernel.Mat{Data: a, Stride: f.d}, kernel.Mat{Data: b, Stride: f.d, T: true},
		out, nb, kernel.Epilogue{Alpha: -2, Bias: bb})
	f.pool.Run(na, rowJob(func(i int) {
		row := out[i*nb : (i+1)*nb]
		var sum float64
		for j := range row {
			d2 := row[j] + aa[i]
			switch {
			case self+i == j && self >= 0:
				d2 = 0
			case d2 < 1e-3*(aa[i]+bb[j]): // cancelled: too few digits left
				d2 = squaredDistance(a[i*f.d:(i+1)*f.d], b[j*f.d:(j+1)*f.d])
			}
			row[j] = float32(math.Sqrt(float64(d2)))
			sum += float64(row[j])
		}
		f.sums[i] = sum
	}))
}

func squaredDistance(a, b []float32) float32 {
	var s float64
	for i, v := range a {
		d := float64(v - b[i])
		s += d * d
	}
	return float32(s)
}

// measure computes this step's distances and bandwidths.
func (f *mmdFit) measure() {
	copy(f.yy, squaredNorms(f.y, f.m, f.d))
	sum := f.sumXX
	f.distances(f.y, f.yy, f.m, f.x, f.xx, f.n, f.cross, -1)
	for i := range f.m {
		sum += 2 * f.sums[i]
	}
	f.distances(f.y, f.yy, f.m, f.y, f.yy, f.m, f.inner, 0)
	for i := range f.m {
		sum += f.sums[i]
	}
	all := float64(f.n + f.m)
	f.bw = sum / (all*all - all) / 4
}

// kernels returns Σ_b exp(−d/h_b) and −(its derivative by d)/d, the weight of
// the difference vector in the gradient; 0 at d = 0, where there is no slope.
// The bandwidths double from one to the next, so one exponential gives all.
func kernels(d, h float64) (k, weight float64) {
	e := math.Exp(-d / (16 * h))
	inv := 1 / (16 * h)
	for range 5 {
		k += e
		weight += e * inv
		e, inv = e*e, inv*2
	}
	if d == 0 {
		return k, 0
	}
	return k, weight / d
}

// step moves the rows once.
func (f *mmdFit) step() {
	f.measure()
	if f.bw == 0 { // every row is the same: nothing to fit
		return
	}
	f.gradients()
	f.b1 *= 0.9
	f.b2 *= 0.999
	f.adam.Correction1, f.adam.Correction2 = float32(1-f.b1), float32(1-f.b2)
	f.adam.Step(f.y, f.grad, f.m1, f.m2, 1)
}

// gradients turns the distances into the loss's gradients. With w the weights of
// kernels, that of row j is 2/(nm)·Σ_i w_ij(y_j − x_i) − 2/m²·Σ_l w_lj(y_j −
// y_l): two matrix products and a multiple of y_j.
func (f *mmdFit) gradients() {
	toX := 2 / (float64(f.n) * float64(f.m))
	toY := -2 / (float64(f.m) * float64(f.m))
	f.pool.Run(f.m, rowJob(func(i int) {
		own := weights(f.cross[i*f.n:(i+1)*f.n], f.bw, toX) + weights(f.inner[i*f.m:(i+1)*f.m], f.bw, toY)
		for k, v := range f.y[i*f.d : (i+1)*f.d] {
			f.grad[i*f.d+k] = float32(own) * v
		}
	}))
	for _, t := range []struct {
		w, z []float32
		n    int
	}{{f.cross, f.x, f.n}, {f.inner, f.y, f.m}} {
		f.pool.Gemm(kernel.FP32, f.m, f.d, t.n, kernel.Mat{Data: t.w, Stride: t.n}, kernel.Mat{Data: t.z, Stride: f.d},
			f.grad, f.d, kernel.Epilogue{Alpha: -1, Accumulate: true})
	}
}

// weights replaces a row of distances by factor times the kernels' weights and
// returns their sum.
func weights(row []float32, h, factor float64) float64 {
	var sum float64
	for j, d := range row {
		_, w := kernels(float64(d), h)
		w *= factor
		row[j] = float32(w)
		sum += w
	}
	return sum
}

// rowJob runs a function for each row on the pool's workers.
type rowJob func(i int)

func (f rowJob) Do(i, _ int) { f(i) }
