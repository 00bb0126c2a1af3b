package kernel

import "math"

// activations are the functions σ: σ alone, with its derivative, and as a gate.
var activations = func() (f [Tanh + 1]struct {
	plain     function[func(v []float32)]
	deriv     function[func(v, deriv []float32)]
	gated     function[func(y, gate, up []float32)]
	gatedGrad function[func(dgate, dup, gate, up, dy []float32)]
}) {
	for i := range f {
		a := Activation(i)
		f[i].plain, f[i].deriv = portable(a.plainPortable), portable(a.derivPortable)
		f[i].gated, f[i].gatedGrad = portable(a.gatedPortable), portable(a.gatedGradPortable)
	}
	return f
}()

// plainPortable replaces v_i by σ(v_i).
func (a Activation) plainPortable(v []float32) {
	if a == Identity {
		return
	}
	for i, x := range v {
		v[i], _ = a.Eval(x)
	}
}

// derivPortable replaces v_i by σ(v_i) and writes σ'(v_i) to deriv_i.
func (a Activation) derivPortable(v, deriv []float32) {
	for i, x := range v {
		v[i], deriv[i] = a.Eval(x)
	}
}

// Activate applies the end of a product's epilogue to one row segment:
//
//	deriv_i = scale_i·σ'(v_i)    (when deriv is not nil)
//	v_i = scale_i·σ(v_i)
//
// A nil scale counts as ones. The other slices have v's length.
func Activate(act Activation, v, deriv, scale []float32) {
	f := &activations[act]
	if deriv != nil {
		deriv = deriv[:len(v)]
		f.deriv.use(v, deriv)
	} else {
		f.plain.use(v)
	}
	if scale != nil {
		Mul(v, scale[:len(v)])
		if deriv != nil {
			Mul(deriv, scale[:len(v)])
		}
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
