package fusion

import (
	"context"
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"

	"mlpfusion/kernel"
)

// refit replaces the block's last linear layer, and the output bias where there
// is one, by the ridge least-squares fit of the original block's outputs on the
// calibration inputs:
//
//	min over W, b of Σ_t ω_t·‖y_t − W·h_t − b‖² + λ·‖W − W₀‖²
//
// ω is the tokens' weights, see WeightedInputs, h what the layer reads (without P), W₀ the layer as the method made it (P
// folded in) and λ the ridge times the mean variance of h's elements times the
// number of tokens. Shrinking towards W₀ rather than zero means that the fit is
// at least as good as no refit on the calibration inputs, for any ridge. With
// P, W2~ becomes W·P⁻¹: P stays the cluster sizes and fixed, so that training
// keeps the form and the step sizes of fusion. Of factors, DownU is fitted; of
// a masked block, each output's weights that are not cut.
//
// Only sums over tokens are kept, in float64: memory is 8·inputs² bytes,
// whatever the number of sentences. With PairInputs y is what those want.
func refit(ctx context.Context, m *MLP, b *Block, o Options) error {
	s := newSums(b.inputs(), m.Hidden)
	if err := s.collect(ctx, o.teacher(m), b, residuals); err != nil {
		return err
	}
	ridge := o.Ridge
	if ridge == 0 {
		ridge = 1e-4
	}
	delta, err := s.solve(ctx, ridge, b, o.Pool)
	if err != nil {
		return err
	}

	n := s.n
	last, scale := b.Down, b.Scale
	if b.Factors != nil {
		last, scale = b.Factors.DownU, nil
	}
	for r := range m.Hidden {
		shift := s.meanE[r]
		for k := range n {
			d := delta.At(k, r)
			shift -= d * s.meanH[k]
			if scale != nil {
				d /= float64(scale[k])
			}
			last[r*n+k] += float32(d)
		}
		if b.DownBias != nil {
			b.DownBias[r] += float32(shift)
		}
	}
	return nil
}

// sums are the moments of the features h (n) and of e (out), what they are to
// explain.
// With a bias to fit they are taken about the means.
type sums struct {
	n, out       int
	mass         float64   // the tokens, by their weights
	hh           []float64 // n×n, the upper triangle
	he           []float64 // n×out
	ee           float64
	meanH, meanE []float64
}

func newSums(n, out int) *sums {
	return &sums{n: n, out: out, hh: make([]float64, n*n), he: make([]float64, n*out), meanH: make([]float64, n), meanE: make([]float64, out)}
}

// target is what collect takes for e.
type target int

const (
	nothing   target = iota // 0, which spares the original's forward pass
	outputs                 // the original's outputs
	residuals               // those less the block's
)

// collect streams the calibration inputs.
func (s *sums) collect(ctx context.Context, t *teacher, b *Block, want target) error {
	last := b.last()
	h := make([]float32, chunk*s.n)
	e := make([]float32, chunk*s.out)
	part := make([]float32, s.n*max(s.n, s.out))
	err := t.each(ctx, want != nothing, func(x, y, w []float32, tokens int) error {
		s.mass += massOf(w, tokens)
		b.features(t.pool, x, tokens, h)
		addRows(s.meanH, h, w, tokens)
		switch want {
		case nothing:
		case outputs:
			copy(e, y)
		case residuals:
			linear(t.pool, last, h, tokens, s.n, s.out, e, kernel.Epilogue{Bias: b.DownBias})
			for i, v := range y {
				e[i] = v - e[i]
			}
		}
		// A chunk's products are summed in float32, the chunks in float64.
		scaleRows(h, w, tokens)
		s.addGram(t.pool, part, h, tokens)
		if want == nothing {
			return nil
		}
		addRows(s.meanE, e, w, tokens)
		scaleRows(e, w, tokens)
		s.ee += kernel.SumSquares(e[:tokens*s.out])
		s.addCross(t.pool, part, h, e, tokens)
		return nil
	})
	if err != nil {
		return err
	}
	count := s.mass
	for _, mean := range [][]float64{s.meanH, s.meanE} {
		for i := range mean {
			mean[i] /= count
			if math.IsNaN(mean[i]) || math.IsInf(mean[i], 0) {
				return errNotFinite
			}
		}
	}
	if b.DownBias == nil {
		clear(s.meanH)
		clear(s.meanE)
	}
	for _, e := range s.meanE {
		s.ee -= count * e * e
	}
	for i, hi := range s.meanH {
		for j := i; j < s.n; j++ {
			s.hh[i*s.n+j] -= count * hi * s.meanH[j]
		}
		for j, ej := range s.meanE {
			s.he[i*s.out+j] -= count * hi * ej
		}
	}
	return nil
}

// addGram adds the upper triangle of hᵀ·h to hh, a band of columns at a time.
func (s *sums) addGram(pool *kernel.Pool, part, h []float32, tokens int) {
	const band = 256
	for j := 0; j < s.n; j += band {
		cols := min(band, s.n-j)
		rows := j + cols
		pool.Gemm(kernel.FP32, rows, cols, tokens, kernel.Mat{Data: h, Stride: s.n, T: true}, kernel.Mat{Data: h[j:], Stride: s.n}, part, cols, kernel.Epilogue{})
		for i := range rows {
			sum := s.hh[i*s.n+j : i*s.n+j+cols]
			for k, v := range part[i*cols : (i+1)*cols] {
				sum[k] += float64(v)
			}
		}
	}
}

// addCross adds hᵀ·e to he.
func (s *sums) addCross(pool *kernel.Pool, part, h, e []float32, tokens int) {
	pool.Gemm(kernel.FP32, s.n, s.out, tokens, kernel.Mat{Data: h, Stride: s.n, T: true}, kernel.Mat{Data: e, Stride: s.out}, part, s.out, kernel.Epilogue{})
	for i, v := range part[:s.n*s.out] {
		s.he[i] += float64(v)
	}
}

// addRows adds the rows of x, each times its weight where there are weights.
func addRows(sum []float64, x, weights []float32, rows int) {
	for r := range rows {
		w := weightOf(weights, r)
		for j, v := range x[r*len(sum) : (r+1)*len(sum)] {
			sum[j] += w * float64(v)
		}
	}
}

// scaleRows multiplies the rows of x by the square roots of their weights, so that
// products of two of them have the weights.
func scaleRows(x, weights []float32, rows int) {
	if weights == nil {
		return
	}
	n := len(x) / chunk
	for r := range rows {
		kernel.Scale(x[r*n:(r+1)*n], float32(math.Sqrt(float64(weights[r]))))
	}
}

// weightOf is that of token r; without weights all have 1.
func weightOf(weights []float32, r int) float64 {
	if weights == nil {
		return 1
	}
	return float64(weights[r])
}

// massOf is the sum of this many tokens' weights.
func massOf(weights []float32, tokens int) float64 {
	if weights == nil {
		return float64(tokens)
	}
	var sum float64
	for _, w := range weights {
		sum += float64(w)
	}
	return sum
}

var errRidge = errors.New("fusion: refit: the calibration activations are too nearly dependent; use a larger ridge or more inputs")

// solve returns the change of the last layer, n×out.
func (s *sums) solve(ctx context.Context, ridge float64, b *Block, pool *kernel.Pool) (*mat.Dense, error) {
	var variance, square float64
	for i, mean := range s.meanH {
		v := max(s.hh[i*s.n+i], 0)
		variance += v
		square += v + s.mass*mean*mean
	}
	// The second term keeps float32's rounding of a chunk's products from passing
	// for variance, where features hardly vary.
	lambda := (ridge*variance + 1e-6*square) / float64(s.n)
	if lambda <= 0 { // features that are all 0
		lambda = 1
	}
	for i := range s.n {
		s.hh[i*s.n+i] += lambda
	}
	gram := mat.NewSymDense(s.n, s.hh)
	cross := mat.NewDense(s.n, s.out, s.he)
	delta := mat.NewDense(s.n, s.out, nil)
	if b.Masked {
		return delta, s.solveMasked(ctx, gram, cross, delta, b, lambda, pool)
	}
	chol, err := factorize(gram, lambda)
	if err != nil {
		return nil, err
	}
	// A condition warning is no failure: the ridge bounds what rounding can do.
	var condition mat.Condition
	if err := chol.SolveTo(delta, cross); err != nil && !errors.As(err, &condition) {
		return nil, err
	}
	return delta, nil
}

// factorize returns the Cholesky factorisation of g, whose diagonal holds the
// ridge lambda. Where rounding has made g indefinite all the same, as it can with
// fewer tokens than features, it raises the ridge tenfold until g is not; a refit
// is never worse than none, whatever its ridge.
func factorize(g *mat.SymDense, lambda float64) (*mat.Cholesky, error) {
	var chol mat.Cholesky
	for range 10 {
		if chol.Factorize(g) {
			return &chol, nil
		}
		for i := range g.SymmetricDim() {
			g.SetSym(i, i, g.At(i, i)+9*lambda)
		}
		lambda *= 10
	}
	return nil, errRidge
}

// solveMasked solves for each output on the weights its mask leaves.
func (s *sums) solveMasked(ctx context.Context, gram *mat.SymDense, cross, delta *mat.Dense, b *Block, lambda float64, pool *kernel.Pool) error {
	errs := make([]error, s.out)
	pool.Run(s.out, rowJob(func(r int) {
		if errs[r] = ctx.Err(); errs[r] != nil {
			return
		}
		var kept []int
		for k, v := range b.Down[r*s.n : (r+1)*s.n] {
			if v != 0 {
				kept = append(kept, k)
			}
		}
		if len(kept) == 0 {
			return
		}
		g, rhs := mat.NewSymDense(len(kept), nil), mat.NewVecDense(len(kept), nil)
		for i, k := range kept {
			rhs.SetVec(i, cross.At(k, r))
			for j := i; j < len(kept); j++ {
				g.SetSym(i, j, gram.At(k, kept[j]))
			}
		}
		chol, err := factorize(g, lambda)
		if err != nil {
			errs[r] = err
			return
		}
		var condition mat.Condition
		if err := chol.SolveVecTo(rhs, rhs); err != nil && !errors.As(err, &condition) {
			errs[r] = err
			return
		}
		for i, k := range kept {
			delta.Set(k, r, rhs.AtVec(i))
		}
	}))
	return errors.Join(errs...)
}
