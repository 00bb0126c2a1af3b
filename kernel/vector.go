package kernel

// Dot returns Σ x_i·y_i.
func Dot(x, y []float32) float32 {
	y = y[:len(x)]
	switch {
	case isa >= AVX512:
		return dotAVX512(x, y)
	case isa >= AVX2:
		return dotAVX2(x, y)
	}
	var s float32
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

// Axpy adds a·x to y.
func Axpy(a float32, x, y []float32) {
	y = y[:len(x)]
	switch {
	case isa >= AVX512:
		axpyAVX512(a, x, y)
		return
	case isa >= AVX2:
		axpyAVX2(a, x, y)
		return
	}
	for i, v := range x {
		y[i] += a * v
	}
}

// Mul multiplies dst by x, element by element.
func Mul(dst, x []float32) {
	dst = dst[:len(x)]
	switch {
	case isa >= AVX512:
		mulAVX512(dst, x)
		return
	case isa >= AVX2:
		mulAVX2(dst, x)
		return
	}
	for i, v := range x {
		dst[i] *= v
	}
}

// Scale multiplies x by a.
func Scale(x []float32, a float32) {
	switch {
	case isa >= AVX512:
		scaleAVX512(x, a)
		return
	case isa >= AVX2:
		scaleAVX2(x, a)
		return
	}
	for i := range x {
		x[i] *= a
	}
}

// Add adds x to dst.
func Add(dst, x []float32) { AddTo(dst, dst, x) }

// AddTo writes x + y to dst, which may be either.
func AddTo(dst, x, y []float32) {
	dst, x = dst[:len(y)], x[:len(y)]
	switch {
	case isa >= AVX512:
		addToAVX512(dst, x, y)
		return
	case isa >= AVX2:
		addToAVX2(dst, x, y)
		return
	}
	for i, v := range x {
		dst[i] = v + y[i]
	}
}

// AddColumns adds to dst the sum over rows of the rows×len(dst) matrix x. Rows
// are added in order, with the same result at every level.
func AddColumns(dst []float32, x []float32, stride, rows int) {
	n, r := len(dst), 0
	for ; isa >= AVX2 && r+4 <= rows; r += 4 {
		four := x[r*stride : (r+3)*stride+n]
		if isa >= AVX512 {
			addRows4AVX512(dst, four, stride)
		} else {
			addRows4AVX2(dst, four, stride)
		}
	}
	for ; r < rows; r++ {
		Add(dst, x[r*stride:r*stride+n])
	}
}

// SumSquares returns Σ x_i² in float64.
func SumSquares(x []float32) float64 {
	switch {
	case isa >= AVX512:
		return sumSquaresAVX512(x)
	case isa >= AVX2:
		return sumSquaresAVX2(x)
	}
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return s
}

// SumSquaresColumns returns Σ weights_i·x_i² in float64.
func SumSquaresColumns(x, weights []float32) float64 {
	weights = weights[:len(x)]
	switch {
	case isa >= AVX512:
		return sumSquaresColumnsAVX512(x, weights)
	case isa >= AVX2:
		return sumSquaresColumnsAVX2(x, weights)
	}
	var s float64
	for i, v := range x {
		s += float64(weights[i]) * float64(v) * float64(v)
	}
	return s
}
