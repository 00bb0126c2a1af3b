package kernel

import "math"

// Activate applies the end of a product's epilogue to one row segment:
//
//	deriv_i = scale_i·σ'(v_i)    (when deriv is not nil)
//	v_i = scale_i·σ(v_i)
//
// A nil scale counts as ones. The other slices have v's length.
func Activate(act Activation, v, deriv, scale []float32) {
	for i, x := range v {
		f, d := act.Eval(x)
		s := float32(1)
		if scale != nil {
			s = scale[i]
		}
		if deriv != nil {
			deriv[i] = s * d
		}
		v[i] = s * f
	}
}

// Eval returns σ(x) and σ'(x), computed in float64. At ±Inf it returns the
// limits; NaN gives NaN.
func (a Activation) Eval(x32 float32) (f, d float32) {
	x := float64(x32)
	if a != Identity && a != ReLU && math.IsInf(x, 0) {
		// σ and its derivative are at their limits long before this.
		_, d = a.Eval(math.Float32frombits(math.Float32bits(x32)&(1<<31) | math.Float32bits(1e4)))
		switch {
		case a == Tanh:
			return float32(math.Copysign(1, x)), d
		case x > 0:
			return x32, d
		}
		return float32(math.Copysign(0, -1)), d
	}
	switch a {
	case GELU:
		cdf := 0.5 * math.Erfc(-x/math.Sqrt2)
		return float32(x * cdf), float32(cdf + x*math.Exp(-0.5*x*x)/math.Sqrt(2*math.Pi))
	case GELUTanh:
		const c, k = 0.7978845608028654, 0.044715 // sqrt(2/π), and the cubic term
		s := 1 / (1 + math.Exp(-2*c*(x+k*x*x*x))) // (1+tanh)/2
		return float32(x * s), float32(s + x*s*(1-s)*2*c*(1+3*k*x*x))
	case ReLU:
		switch {
		case x > 0:
			return x32, 1
		case x32 != x32:
			return x32, x32
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
