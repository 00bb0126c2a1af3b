package kernel

import "math"

// Dot returns Σ x_i·y_i.
func Dot(x, y []float32) float32 {
	var s float32
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

// Axpy adds a·x to y.
func Axpy(a float32, x, y []float32) {
	for i, v := range x {
		y[i] += a * v
	}
}

// Mul multiplies dst by x, element by element.
func Mul(dst, x []float32) {
	for i, v := range x {
		dst[i] *= v
	}
}

// Add adds x to dst.
func Add(dst, x []float32) { AddTo(dst[:len(x)], dst, x) }

// AddTo writes x + y to dst, which may be either.
func AddTo(dst, x, y []float32) {
	dst, y = dst[:len(x)], y[:len(x)]
	for i, v := range x {
		dst[i] = v + y[i]
	}
}

// SumSquares returns Σ x_i² in float64.
func SumSquares(x []float32) float64 {
	var s float64
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return s
}

// SumSquaresColumns returns Σ weights_i·x_i² in float64.
func SumSquaresColumns(x, weights []float32) float64 {
	weights = weights[:len(x)]
	var s float64
	for i, v := range x {
		s += float64(weights[i]) * (float64(v) * float64(v))
	}
	return s
}

// AddColumns adds to dst the sum over rows of the rows×len(dst) matrix x.
func AddColumns(dst []float32, x []float32, stride, rows int) {
	for r := range rows {
		for j, v := range x[r*stride : r*stride+len(dst)] {
			dst[j] += v
		}
	}
}

// Softmax replaces x by exp(scale·x_i − max)/Σ exp(scale·x_j − max).
func Softmax(x []float32, scale float32) {
	m := float32(math.Inf(-1))
	for _, v := range x {
		m = max(m, v*scale)
	}
	var s float32
	for i, v := range x {
		e := float32(math.Exp(float64(v*scale - m)))
		x[i] = e
		s += e
	}
	for i := range x {
		x[i] /= s
	}
}

// SoftmaxGrad replaces dp, the gradient with respect to the probabilities p =
// softmax(scale·x), by the gradient with respect to x.
func SoftmaxGrad(dp, p []float32, scale float32) {
	s := Dot(dp, p)
	for i, v := range p {
		dp[i] = scale * v * (dp[i] - s)
	}
}

// LayerNorm writes (x−mean)·rstd·gain + bias to y and (x−mean)·rstd to norm
// (when norm is not nil), and returns rstd = 1/sqrt(variance + eps). All slices
// have one length.
func LayerNorm(y, norm, x, gain, bias []float32, eps float32) (rstd float32) {
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
// the saved norm and rstd, and adds dy·norm to dgain and dy to dbias.
func LayerNormGrad(dx, dgain, dbias, dy, norm, gain []float32, rstd float32) {
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

// AdamW holds one step's constants; see Step.
type AdamW struct {
	LR          float32 // learning rate times the schedule
	Beta1       float32
	Beta2       float32
	Eps         float32
	Decay       float32 // decoupled: w -= LR·Decay·w
	Correction1 float32 // 1 − Beta1^t
	Correction2 float32 // 1 − Beta2^t
	GradScale   float32 // the clipping factor, multiplied into every gradient
}

// Step applies one AdamW update in place, as torch.optim.AdamW defines it:
//
//	w −= LR·Decay·w
//	g = GradScale·grad;  m = β1·m + (1−β1)·g;  v = β2·v + (1−β2)·g²
//	w −= rate·LR/Correction1 · m / (sqrt(v/Correction2) + Eps)
//
// rate multiplies the step but not the decay. All slices have one length.
func (o *AdamW) Step(w, grad, m, v []float32, rate float32) {
	c := o.constants()
	size := rate * c.size
	for i, g := range grad {
		w[i] = c.step(w[i], g, &m[i], &v[i], size)
	}
}

// StepColumns is Step with a rate for each element.
func (o *AdamW) StepColumns(w, grad, m, v, rates []float32) {
	c := o.constants()
	for i, g := range grad {
		w[i] = c.step(w[i], g, &m[i], &v[i], rates[i]*c.size)
	}
}

// adamConstants is what the loop needs of AdamW; the assembly reads the fields
// by their offsets.
type adamConstants struct {
	gradScale, beta1, rest1, beta2, rest2 float32
	keep, size, root, eps                 float32
}

func (o *AdamW) constants() adamConstants {
	return adamConstants{
		o.GradScale, o.Beta1, 1 - o.Beta1, o.Beta2, 1 - o.Beta2,
		1 - o.LR*o.Decay, o.LR / o.Correction1, float32(1 / math.Sqrt(float64(o.Correction2))), o.Eps,
	}
}

// step returns the new w. It rounds each product and sum once, as the assembly
// does, except where Go may fuse them.
func (c *adamConstants) step(w, g float32, m, v *float32, size float32) float32 {
	g *= c.gradScale
	*m = c.beta1**m + c.rest1*g
	*v = c.beta2**v + c.rest2*g*g
	return c.keep*w - size**m/(float32(math.Sqrt(float64(*v)))*c.root+c.eps)
}
