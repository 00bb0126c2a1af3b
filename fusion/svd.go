package fusion

import (
	"context"
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"

	"mlpfusion/kernel"
)

// svd cuts each matrix to its t leading singular directions and keeps the two
// factors as two linear layers, U·S and Vᵀ.
func init() {
	register(Method{Name: "svd", Rank: 5, About: "not units: each matrix is cut to its leading singular directions",
		block: truncated})
}

func truncated(ctx context.Context, m *MLP, o Options) (*Block, error) {
	t := svdRank(m.Hidden, m.Width, o.Width)
	b := &Block{MLP: m.clone(), Factors: &Factors{Rank: t}}
	b.Gate, b.Up, b.Down = nil, nil, nil
	var err error
	cut := func(w []float32, rows, cols int) (u, v []float32) {
		if w == nil || err != nil {
			return nil, nil
		}
		if err = ctx.Err(); err == nil {
			u, v, _, err = truncate(w, rows, cols, t, o.Pool)
		}
		return u, v
	}
	f := b.Factors
	f.GateU, f.GateV = cut(m.Gate, m.Width, m.Hidden)
	f.UpU, f.UpV = cut(m.Up, m.Width, m.Hidden)
	f.DownU, f.DownV = cut(m.Down, m.Hidden, m.Width)
	return b, err
}

// svdRank is the largest rank at which the factors cost no more than a fused
// block of width c: t·(p + p_I) ≤ c·p for each matrix, which is c/5 when p_I is
// 4p; but at least 1.
func svdRank(p, pI, c int) int { return max(1, c*p/(p+pI)) }

// truncate returns the factors of the best approximation of w (rows×cols) of
// rank t, u = U·S (rows×t) and v = Vᵀ (t×cols), and all singular values.
//
// They come from the eigenvectors of the smaller Gram matrix in float64, which
// is several times faster than a full decomposition. A Gram matrix squares the
// spectrum, so singular values below 1e-8 of the largest are lost: their
// directions are noise, but then so is what they add, 1e-8 of the matrix.
func truncate(w []float32, rows, cols, t int, pool *kernel.Pool) (u, v []float32, values []float64, err error) {
	tall := rows >= cols
	n := min(rows, cols)
	var eig mat.EigenSym
	if !eig.Factorize(gram64(w, rows, cols), true) {
		return nil, nil, nil, errors.New("fusion: svd: the eigenvalues did not converge")
	}
	values = eig.Values(nil) // rising
	var vec mat.Dense
	eig.VectorsTo(&vec)
	q := make([]float32, t*n) // the t leading eigenvectors as rows
	for k := range t {
		for i := range n {
			q[k*n+i] = float32(vec.At(i, n-1-k))
		}
	}
	for i, e := range values {
		values[i] = math.Sqrt(max(e, 0))
	}
	for i, j := 0, n-1; i < j; i, j = i+1, j-1 {
		values[i], values[j] = values[j], values[i]
	}

	if tall { // q = Vᵀ and W·V = U·S
		u = make([]float32, rows*t)
		linear(pool, q, w, rows, cols, t, u, kernel.Epilogue{})
		return u, q, values, nil
	}
	// q = Uᵀ and Uᵀ·W = S·Vᵀ
	v = make([]float32, t*cols)
	pool.Gemm(kernel.FP32, t, cols, rows, kernel.Mat{Data: q, Stride: rows}, kernel.Mat{Data: w, Stride: cols}, v, cols, kernel.Epilogue{})
	u = make([]float32, rows*t)
	for k := range t {
		row := v[k*cols : (k+1)*cols]
		s := math.Sqrt(kernel.SumSquares(row))
		for j := range row {
			if s > 0 {
				row[j] = float32(float64(row[j]) / s)
			}
		}
		for i := range rows {
			u[i*t+k] = float32(float64(q[k*rows+i]) * s)
		}
	}
	return u, v, values, nil
}

// gram64 returns WᵀW or WWᵀ, whichever is smaller, in float64.
func gram64(w []float32, rows, cols int) *mat.SymDense {
	d := make([]float64, len(w))
	for i, v := range w {
		d[i] = float64(v)
	}
	full := mat.NewDense(rows, cols, d)
	g := mat.NewSymDense(min(rows, cols), nil)
	if rows >= cols {
		g.SymOuterK(1, full.T())
	} else {
		g.SymOuterK(1, full)
	}
	return g
}
