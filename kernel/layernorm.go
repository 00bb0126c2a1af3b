package kernel

import "math"

var (
	layerNorm     = portable(layerNormPortable)
	layerNormGrad = portable(layerNormGradPortable)
)

// LayerNorm writes (x−mean)·rstd·gain + bias to y and (x−mean)·rstd to norm
// (when norm is not nil), and returns rstd = 1/sqrt(variance + eps). All slices
// have one length; y may be x.
func LayerNorm(y, norm, x, gain, bias []float32, eps float32) (rstd float32) {
	n := len(x)
	y, gain, bias = y[:n], gain[:n], bias[:n]
	if norm != nil {
		norm = norm[:n]
	}
	return layerNorm.use(y, norm, x, gain, bias, eps, 1/float32(n))
}

// layerNormPortable is LayerNorm; inverse is 1/len(x).
func layerNormPortable(y, norm, x, gain, bias []float32, eps, inverse float32) (rstd float32) {
	var s float64
	for _, v := range x {
		s += float64(v)
	}
	mean := s / float64(len(x))
	var q float64
	for _, v := range x {
		d := float64(v) - mean
		q += d * d
	}
	rstd = float32(1 / math.Sqrt(q/float64(len(x))+float64(eps)))
	for i, v := range x {
		h := (v - float32(mean)) * rstd
		if norm != nil {
			norm[i] = h
		}
		y[i] = h*gain[i] + bias[i]
	}
	return rstd
}

// LayerNormGrad writes the gradient with respect to LayerNorm's x, given dy and
// the saved norm and rstd, and adds dy·norm to dgain and dy to dbias. dx may be
// dy.
func LayerNormGrad(dx, dgain, dbias, dy, norm, gain []float32, rstd float32) {
	n := len(dy)
	layerNormGrad.use(dx[:n], dgain[:n], dbias[:n], dy, norm[:n], gain[:n], rstd, 1/float32(n))
}

// layerNormGradPortable is LayerNormGrad; inverse is 1/len(dy).
func layerNormGradPortable(dx, dgain, dbias, dy, norm, gain []float32, rstd, inverse float32) {
	var s, q float32
	for i, g := range dy {
		d := g * gain[i]
		s += d
		q += d * norm[i]
		dgain[i] += g * norm[i]
		dbias[i] += g
	}
	n := float32(len(dy))
	s, q = s/n, q/n
	for i, g := range dy {
		dx[i] = rstd * (g*gain[i] - s - norm[i]*q)
	}
}
