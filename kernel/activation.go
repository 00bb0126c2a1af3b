package kernel

import "math"

// Activate applies the end of a product's epilogue to one row segment:
//
//	deriv_i = scale_i·σ'(v_i)    (when deriv is not nil)
//	v_i = scale_i·σ(v_i)
//
// A nil scale counts as ones. The other slices have v's length.
func Activate(act Activation, v, deriv, scale []float32) {
	if deriv != nil {
		deriv = deriv[:len(v)]
	}
	if isa >= AVX2 {
		act.vectors(v, deriv)
		if scale != nil {
			Mul(v, scale[:len(v)])
			if deriv != nil {
				Mul(deriv, scale[:len(v)])
			}
		}
		return
	}
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

// activationFuncs are a function in assembly and its form that writes the
// derivative too.
type activationFuncs struct {
	plain func(v []float32)
	deriv func(v, deriv []float32)
}

var activationsAVX2 = [...]activationFuncs{
	GELU:     {geluAVX2, geluDerivAVX2},
	GELUTanh: {geluTanhAVX2, geluTanhDerivAVX2},
	ReLU:     {reluAVX2, reluDerivAVX2},
	SiLU:     {siluAVX2, siluDerivAVX2},
	Tanh:     {tanhAVX2, tanhDerivAVX2},
}

var activationsAVX512 = [...]activationFuncs{
	GELU:     {geluAVX512, geluDerivAVX512},
	GELUTanh: {geluTanhAVX512, geluTanhDerivAVX512},
	ReLU:     {reluAVX512, reluDerivAVX512},
	SiLU:     {siluAVX512, siluDerivAVX512},
	Tanh:     {tanhAVX512, tanhDerivAVX512},
}

// vectors is Activate without a scale, in assembly.
func (a Activation) vectors(v, deriv []float32) {
	if a == Identity {
		for i := range deriv {
			deriv[i] = 1
		}
		return
	}
	f := &activationsAVX2[a]
	if isa >= AVX512 {
		f = &activationsAVX512[a]
	}
	if deriv != nil {
		f.deriv(v, deriv)
	} else {
		f.plain(v)
	}
}

// Eval returns σ(x) and σ'(x), computed in float64. At ±Inf it returns the
// limits; NaN gives NaN.
func (a Activation) Eval(x float32) (f, d float32) {
	f64, d64 := a.eval64(float64(x))
	return float32(f64), float32(d64)
}

func (a Activation) eval64(x float64) (f, d float64) {
	// What multiplies 0 or 1 beyond this, in float32: the limits come out right.
	z := max(min(x, 200), -200)
	switch a {
	case GELU:
		cdf := 0.5 * math.Erfc(-z/math.Sqrt2)
		return max(x, -200) * cdf, cdf + z*math.Exp(-0.5*z*z)/math.Sqrt(2*math.Pi)
	case GELUTanh:
		const c, k = 0.7978845608028654, 0.044715 // sqrt(2/π), and the cubic term
		s := 1 / (1 + math.Exp(-2*c*(z+k*z*z*z))) // (1+tanh)/2
		return max(x, -200) * s, s + z*s*(1-s)*2*c*(1+3*k*z*z)
	case ReLU:
		if x <= 0 {
			return 0, 0
		}
		return x, 1
	case SiLU:
		s := 1 / (1 + math.Exp(-z))
		return max(x, -200) * s, s * (1 + z*(1-s))
	case Tanh:
		t := math.Tanh(x)
		return t, 1 - t*t
	}
	return x, 1
}
