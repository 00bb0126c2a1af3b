package kernel

import (
	"flag"
	"math"
	"testing"
)

var every = flag.Uint64("every", 4099, "measure the functions at every n-th of the float32 bit patterns")

var activationNames = map[Activation]string{Identity: "Identity", GELU: "GELU", GELUTanh: "GELUTanh", ReLU: "ReLU", SiLU: "SiLU", Tanh: "Tanh"}

func allActivations() (under tables) {
	for a := range activations {
		under = append(under, &activations[a].plain, &activations[a].deriv, &activations[a].gated, &activations[a].gatedGrad)
	}
	return under
}

// patterns calls f with float32s that cover all bit patterns evenly, 1024 at a
// time; with -every 1 it is all of them.
func patterns(f func(x []float32)) {
	x := make([]float32, 0, 1024)
	for b := uint64(0); b < 1<<32; b += *every {
		x = append(x, math.Float32frombits(uint32(b)))
		if len(x) == cap(x) {
			f(x)
			x = x[:0]
		}
	}
	f(x)
}

// ulp is the distance between float32s at |x|.
func ulp(x float64) float64 {
	_, e := math.Frexp(x)
	return math.Ldexp(1, max(e-24, -149))
}

// worst remembers the largest error and where it was.
type worst struct{ err, at float64 }

func (w *worst) see(err, at float64) {
	if err > w.err || err != err {
		*w = worst{err, at}
	}
}

// errorBounds are, for σ and for σ', the largest errors relative to max(1, |x|)
// that the assembly may have; measured over all bit patterns they are below
// these, see TestActivationError. The portable code rounds a float64 result.
var errorBounds = map[Activation][2]float64{
	Identity: {0, 0},
	GELU:     {2e-7, 2.5e-7},
	GELUTanh: {2e-7, 2.5e-7},
	ReLU:     {0, 0},
	SiLU:     {2e-7, 2.5e-7},
	Tanh:     {1.2e-7, 2e-7},
}

func TestActivationError(t *testing.T) {
	v, deriv := make([]float32, 1024), make([]float32, 1024)
	each(t, allActivations(), func(t *testing.T) {
		for act := Identity; act <= Tanh; act++ {
			var f, d worst
			patterns(func(x []float32) {
				v, deriv := v[:len(x)], deriv[:len(x)]
				copy(v, x)
				Activate(act, v, deriv, nil)
				for i, x := range x {
					wantF, wantD := act.eval64(float64(x))
					if x != x {
						if v[i] == v[i] || act != Identity && act != ReLU && deriv[i] == deriv[i] {
							t.Fatalf("%s(NaN) is %v with derivative %v", activationNames[act], v[i], deriv[i])
						}
						continue
					}
					size := max(1, math.Abs(float64(x)))
					if v[i] != float32(wantF) { // equal infinities
						f.see(math.Abs(float64(v[i])-wantF)/size, float64(x))
					}
					d.see(math.Abs(float64(deriv[i])-wantD), float64(x))
				}
			})
			t.Logf("%s: error %.3g at %v, of the derivative %.3g at %v", activationNames[act], f.err, f.at, d.err, d.at)
			if b := errorBounds[act]; !(f.err <= b[0]) || !(d.err <= b[1]) {
				t.Errorf("%s: errors %.3g and %.3g are above %v", activationNames[act], f.err, d.err, b)
			}
		}
	})
}

// TestTanhULP and TestExpULP measure in units in the last place.
func TestTanhULP(t *testing.T) {
	v := make([]float32, 1024)
	each(t, tables{&activations[Tanh].plain}, func(t *testing.T) {
		var w worst
		patterns(func(x []float32) {
			v := v[:len(x)]
			copy(v, x)
			Activate(Tanh, v, nil, nil)
			for i, x := range x {
				if x == x {
					want := math.Tanh(float64(x))
					w.see(math.Abs(float64(v[i])-want)/ulp(want), float64(x))
				}
			}
		})
		t.Logf("%.3f ulp at %v", w.err, w.at)
		if !(w.err <= 2) {
			t.Errorf("tanh is off by %.3f ulp at %v", w.err, w.at)
		}
	})
}

func TestExpULP(t *testing.T) {
	v := make([]float32, 1024)
	each(t, tables{&expSum}, func(t *testing.T) {
		var w worst
		patterns(func(x []float32) {
			if x[0] > 0 { // the other half
				return
			}
			v := v[:len(x)]
			copy(v, x)
			ExpSum(v, 1, 0)
			for i, x := range x {
				want := math.Exp(float64(x))
				switch {
				case x != x:
					if v[i] == v[i] {
						t.Fatalf("exp(NaN) is %v", v[i])
					}
				case want < 0x1p-126:
					near(t, "exp of a large negative number", i, v[i], want, 0x1p-126)
				case x <= 0:
					w.see(math.Abs(float64(v[i])-want)/ulp(want), float64(x))
				}
			}
		})
		t.Logf("%.3f ulp at %v", w.err, w.at)
		if !(w.err <= 1.5) {
			t.Errorf("exp is off by %.3f ulp at %v", w.err, w.at)
		}
	})
}

// TestActivationSpecial: the same limits at every level, signs of zero included.
func TestActivationSpecial(t *testing.T) {
	inf, zero := float32(math.Inf(1)), float32(math.Copysign(0, -1))
	tiny := math.Float32frombits(1)
	x := []float32{inf, -inf, 0, zero, tiny, -tiny, math.MaxFloat32, -math.MaxFloat32}
	half := []float32{1, 0, 0.5, 0.5, 0.5, 0.5, 1, 0}
	gate := []float32{inf, zero, 0, zero, 0, 0, math.MaxFloat32, zero} // at ±tiny: x/2, either way of the tie
	for _, c := range []struct {
		act  Activation
		f, d []float32
	}{
		{Identity, x, []float32{1, 1, 1, 1, 1, 1, 1, 1}},
		{GELU, gate, half},
		{GELUTanh, gate, half},
		{SiLU, gate, half},
		{ReLU, []float32{inf, 0, 0, 0, tiny, 0, math.MaxFloat32, 0}, []float32{1, 0, 0, 0, 1, 0, 1, 0}},
		{Tanh, []float32{1, -1, 0, zero, tiny, -tiny, 1, -1}, []float32{0, 0, 1, 1, 1, 1, 0, 0}},
	} {
		t.Run(activationNames[c.act], func(t *testing.T) {
			each(t, allActivations(), func(t *testing.T) {
				f, d := clone(x), make([]float32, len(x))
				Activate(c.act, f, d, nil)
				for i, x := range x {
					if c.act == ReLU && x == 0 && f[i] == 0 {
						continue // of either sign
					}
					tie := c.f[i] == 0 && x*x == 0 && x != 0 && math.Abs(float64(f[i])) <= float64(tiny)
					if math.Float32bits(f[i]) != math.Float32bits(c.f[i]) && !tie {
						t.Errorf("σ(%v) = %v, want %v", x, f[i], c.f[i])
					}
					near(t, "derivative", i, d[i], float64(c.d[i]), 1.2e-7)
				}
			})
		})
	}
}

// TestActivate: lengths, offsets, scale and derivative.
func TestActivate(t *testing.T) {
	sweep(t, allActivations(), func(t *testing.T, a *arena, n int) {
		for act := Identity; act <= Tanh; act++ {
			v, deriv, scale := a.slice(n), a.slice(n), a.slice(n)
			x := clone(v)
			if n%3 == 0 {
				Activate(act, v, deriv, scale)
			} else {
				Activate(act, v, nil, scale)
			}
			for i, x := range x {
				f, d := act.Eval(x)
				s := math.Abs(float64(scale[i]))
				near(t, activationNames[act], i, v[i], float64(scale[i])*float64(f), s*3e-7*max(1, math.Abs(float64(x))))
				if n%3 == 0 {
					near(t, "derivative of "+activationNames[act], i, deriv[i], float64(scale[i])*float64(d), s*3e-7)
				}
			}
		}
	})
}

// TestGated: a gate and its gradients, at all lengths and offsets, also in place.
func TestGated(t *testing.T) {
	sweep(t, allActivations(), func(t *testing.T, a *arena, n int) {
		for act := Identity; act <= Tanh; act++ {
			gate, up, dy := a.slice(n), a.slice(n), a.slice(n)
			y, dgate, dup := a.slice(n), a.slice(n), a.slice(n)
			Gated(act, y, gate, up)
			GatedGrad(act, dgate, dup, gate, up, dy)
			for i, x := range gate {
				f, d := act.eval64(float64(x))
				u, g := float64(up[i]), float64(dy[i])
				b := errorBounds[act]
				size := max(1, math.Abs(float64(x))) // errors are relative to it
				near(t, activationNames[act], i, y[i], f*u, math.Abs(u)*size*(b[0]+2*eps))
				near(t, "dgate of "+activationNames[act], i, dgate[i], d*u*g, math.Abs(u*g)*(b[1]+4*eps))
				near(t, "dup of "+activationNames[act], i, dup[i], f*g, math.Abs(g)*size*(b[0]+2*eps))
			}
			inGate, inUp := clone(gate), clone(up)
			GatedGrad(act, inGate, inUp, inGate, inUp, dy)
			Gated(act, gate, gate, up)
			for i := range gate {
				near(t, "in place of the gate", i, gate[i], float64(y[i]), 0)
				near(t, "dgate in place", i, inGate[i], float64(dgate[i]), 0)
				near(t, "dup in place", i, inUp[i], float64(dup[i]), 0)
			}
		}
	})
}
