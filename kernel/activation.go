package kernel

import "math"

// eval returns σ(x) and σ'(x), computed in float64.
func (a Activation) eval(x32 float32) (f, d float32) {
	x := float64(x32)
	switch a {
	case GELU:
		cdf := 0.5 * math.Erfc(-x/math.Sqrt2)
		return float32(x * cdf), float32(cdf + x*math.Exp(-0.5*x*x)/math.Sqrt(2*math.Pi))
	case GELUTanh:
		const c, k = 0.7978845608028654, 0.044715 // sqrt(2/π), and the cubic term
		t := math.Tanh(c * (x + k*x*x*x))
		return float32(0.5 * x * (1 + t)), float32(0.5*(1+t) + 0.5*x*(1-t*t)*c*(1+3*k*x*x))
	case ReLU:
		if x > 0 {
			return x32, 1
		}
		return 0, 0
	case SiLU:
		s := 1 / (1 + math.Exp(-x))
		return float32(x * s), float32(s * (1 + x*(1-s)))
	case Tanh:
		t := math.Tanh(x)
		return float32(t), float32(1 - t*t)
	}
	return x32, 1
}

// Eval returns σ(x) and σ'(x).
func (a Activation) Eval(x float32) (f, d float32) { return a.eval(x) }

// round reads x at the given precision.
func round(prec Precision, x float32) float32 {
	if prec == FP32 {
		return x
	}
	return math.Float32frombits(uint32(ToBF16(x)) << 16)
}

// ToBF16 rounds x to the nearest bfloat16, ties to even, and returns its bits.
// NaN stays NaN.
func ToBF16(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + (b>>16)&1) >> 16)
}
