package kernel

var (
	dot               = portable(dotPortable)
	axpy              = portable(axpyPortable)
	mul               = portable(mulPortable)
	scale             = portable(scalePortable)
	addTo             = portable(addToPortable)
	addRows4          = portable(addRows4Portable)
	sumSquares        = portable(sumSquaresPortable)
	sumSquaresColumns = portable(sumSquaresColumnsPortable)
)

// Dot returns Σ x_i·y_i.
func Dot(x, y []float32) float32 { return dot.use(x, y[:len(x)]) }

func dotPortable(x, y []float32) float32 {
	var s float32
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

// Axpy adds a·x to y.
func Axpy(a float32, x, y []float32) { axpy.use(a, x, y[:len(x)]) }

func axpyPortable(a float32, x, y []float32) {
	for i, v := range x {
		y[i] += a * v
	}
}

// Mul multiplies dst by x, element by element.
func Mul(dst, x []float32) { mul.use(dst[:len(x)], x) }

func mulPortable(dst, x []float32) {
	for i, v := range x {
		dst[i] *= v
	}
}

// Scale multiplies x by a.
func Scale(x []float32, a float32) { scale.use(x, a) }

func scalePortable(x []float32, a float32) {
	for i := range x {
		x[i] *= a
	}
}

// Add adds x to dst.
func Add(dst, x []float32) { AddTo(dst, dst, x) }

// AddTo writes x + y to dst, which may be either.
func AddTo(dst, x, y []float32) { addTo.use(dst[:len(y)], x[:len(y)], y) }

func addToPortable(dst, x, y []float32) {
	for i, v := range x {
		dst[i] = v + y[i]
	}
}

// AddColumns adds to dst the sum over rows of the rows×len(dst) matrix x. Rows
// are added in order, with the same result from every implementation.
func AddColumns(dst []float32, x []float32, stride, rows int) {
	n, r := len(dst), 0
	for ; r+4 <= rows; r += 4 {
		addRows4.use(dst, x[r*stride:(r+3)*stride+n], stride)
	}
	for ; r < rows; r++ {
		Add(dst, x[r*stride:r*stride+n])
	}
}

// addRows4Portable adds to dst the four rows of x.
func addRows4Portable(dst, x []float32, stride int) {
	for r := range 4 {
		addToPortable(dst, dst, x[r*stride:][:len(dst)])
	}
}

// SumSquares returns Σ x_i² in float64.
func SumSquares(x []float32) float64 { return sumSquares.use(x) }

func sumSquaresPortable(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return s
}

// SumSquaresColumns returns Σ weights_i·x_i² in float64.
func SumSquaresColumns(x, weights []float32) float64 {
	return sumSquaresColumns.use(x, weights[:len(x)])
}

func sumSquaresColumnsPortable(x, weights []float32) float64 {
	var s float64
	for i, v := range x {
		s += float64(weights[i]) * float64(v) * float64(v)
	}
	return s
}
