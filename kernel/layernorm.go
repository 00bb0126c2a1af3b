package kernel

import "math"

// LayerNorm writes (x−mean)·rstd·gain + bias to y and (x−mean)·rstd to norm
// (when norm is not nil), and returns rstd = 1/sqrt(variance + eps). All slices
// have one length; y may be x.
func LayerNorm(y, norm, x, gain, bias []float32, eps float32) (rstd float32) {
	y, gain, bias = y[:len(x)], gain[:len(x)], bias[:len(x)]
	if norm != nil {
		norm = norm[:len(x)]
	}
	switch {
	case isa >= AVX512:
		return layerNormAVX512(y, norm, x, gain, bias, eps, 1/float32(len(x)))
	case isa >= AVX2:
		return layerNormAVX2(y, norm, x, gain, bias, eps, 1/float32(len(x)))
	}
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
	dx, dgain, dbias, norm, gain = dx[:n], dgain[:n], dbias[:n], norm[:n], gain[:n]
	switch {
	case isa >= AVX512:
		layerNormGradAVX512(dx, dgain, dbias, dy, norm, gain, rstd, 1/float32(n))
		return
	case isa >= AVX2:
		layerNormGradAVX2(dx, dgain, dbias, dy, norm, gain, rstd, 1/float32(n))
		return
	}
	var s, q float32
	for i, g := range dy {
		d := g * gain[i]
		s += d
		q += d * norm[i]
		dgain[i] += g * norm[i]
		dbias[i] += g
	}
	s, q = s/float32(n), q/float32(n)
	for i, g := range dy {
		dx[i] = rstd * (g*gain[i] - s - norm[i]*q)
	}
}
