package kernel

import "math"

var (
	rmsNorm     = portable(rmsNormPortable)
	rmsNormGrad = portable(rmsNormGradPortable)
)

// RMSNorm writes x·rstd·gain to y and returns rstd = 1/sqrt(mean(x²) + eps)
// (arXiv 1910.07467). All slices have one length; y may be x.
func RMSNorm(y, x, gain []float32, eps float32) (rstd float32) {
	rstd = float32(1 / math.Sqrt(SumSquares(x)/float64(len(x))+float64(eps)))
	rmsNorm.use(y[:len(x)], x, gain[:len(x)], rstd)
	return rstd
}

// rmsNormPortable writes x_i·rstd·gain_i to y_i.
func rmsNormPortable(y, x, gain []float32, rstd float32) {
	for i, v := range x {
		y[i] = v * rstd * gain[i]
	}
}

// RMSNormGrad writes the gradient with respect to RMSNorm's x, given dy and the saved
// rstd, and adds dy·x·rstd to dgain:
//
//	dx = rstd·(gain ⊙ dy − x·rstd²·mean(gain ⊙ dy ⊙ x))
//
// dx may be dy.
func RMSNormGrad(dx, dgain, dy, x, gain []float32, rstd float32) {
	n := len(dy)
	rmsNormGrad.use(dx[:n], dgain[:n], dy, x[:n], gain[:n], rstd, 1/float32(n))
}

// rmsNormGradPortable is RMSNormGrad; inverse is 1/len(dy).
func rmsNormGradPortable(dx, dgain, dy, x, gain []float32, rstd, inverse float32) {
	var sum float32
	for i, g := range dy {
		h := x[i] * rstd * g
		dgain[i] += h
		sum += h * gain[i]
	}
	along := sum * inverse * rstd
	for i, g := range dy {
		dx[i] = rstd * (gain[i]*g - x[i]*along)
	}
}
