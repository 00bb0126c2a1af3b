package main

import (
	"math"

	"mlpfusion/kernel/generate/minimax"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// An activation returns σ(x) and, when asked to, σ'(x).
type activation struct {
	name string
	emit func(w lanes, x VecVirtual, deriv bool) (f, d VecVirtual)
	gate gate // AVX-512 looks up one that is given, in half emit's time; see table
}

var activations = []activation{
	{"gelu", gelu, geluGate},
	{"geluTanh", geluTanh, geluTanhGate},
	{"relu", relu, nil},
	{"silu", silu, nil}, // its tail is too long for a table
	{"tanh", tanh, nil},
}

func activate(w lanes, a activation, deriv bool) {
	name, params, doc := a.name, "v []float32", "replaces v_i by σ(v_i)."
	if deriv {
		name, params, doc = a.name+"Deriv", "v, deriv []float32", "replaces v_i by σ(v_i) and writes σ'(v_i) to deriv_i."
	}
	function(w, name, params, "", doc)
	v := slice("v")
	var to Register
	if deriv {
		to = slice("deriv")
	}
	emit := w.emitter(a, deriv)
	w.loop(length("v"), 1, func(s span, _ int) {
		f, d := emit(s.from(v))
		s.to(v, f)
		if deriv {
			s.to(to, d)
		}
	})
	ret()
}

// emitter returns what emits σ(x) and, when asked to, σ'(x).
func (w lanes) emitter(a activation, deriv bool) func(x VecVirtual) (f, d VecVirtual) {
	if w == avx512 && a.gate != nil {
		t := w.table(a.name, a.gate)
		return func(x VecVirtual) (f, d VecVirtual) { return t.gate(x, deriv) }
	}
	return func(x VecVirtual) (f, d VecVirtual) { return a.emit(w, x, deriv) }
}

func gated(w lanes, a activation) {
	function(w, a.name+"Gated", "y, gate, up []float32", "", "writes σ(gate_i)·up_i to y_i.")
	y, gate, up := slice("y"), slice("gate"), slice("up")
	emit := w.emitter(a, false)
	w.loop(length("gate"), 1, func(s span, _ int) {
		f, _ := emit(s.from(gate))
		s.to(y, w.mul(f, s.from(up)))
	})
	ret()
}

func gatedGrad(w lanes, a activation) {
	function(w, a.name+"GatedGrad", "dgate, dup, gate, up, dy []float32", "",
		"writes dy_i·up_i·σ'(gate_i) to dgate_i and dy_i·σ(gate_i) to dup_i.")
	dgate, dup, gate, up, dy := slice("dgate"), slice("dup"), slice("gate"), slice("up"), slice("dy")
	emit := w.emitter(a, true)
	w.loop(length("gate"), 1, func(s span, _ int) {
		f, d := emit(s.from(gate))
		g := s.from(dy)
		VMULPS(s.from(up), d, d)
		VMULPS(g, d, d)
		VMULPS(g, f, f)
		s.to(dgate, d)
		s.to(dup, f)
	})
	ret()
}

// gelu is x·Φ(x), and its derivative Φ(x) + x·φ(x). Beyond ±20 φ is 0 and Φ 0 or 1;
// the clamping makes ±Inf come out right.
func gelu(w lanes, x VecVirtual, deriv bool) (f, d VecVirtual) {
	z := w.clamp(x, 20)
	cdf, pdf := w.normal(z)
	f = w.mul(cdf, w.max(x, w.f32(-20)))
	if deriv {
		d = w.fma(z, pdf, cdf)
	}
	return f, d
}

// geluGate is gelu in float64, for its table.
func geluGate(x float64) (f, d float64) {
	cdf, pdf := math.Erfc(-x/math.Sqrt2)/2, math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	return x * cdf, cdf + x*pdf
}

// geluTanh is x·s with s = (1+tanh u)/2 = sigmoid(2u), 2u = c·(x + k·x³), c = √(8/π);
// its derivative is s + x·s·(1−s)·(2u)'.
func geluTanh(w lanes, x VecVirtual, deriv bool) (f, d VecVirtual) {
	const c, k = minimax.GELUTanhC, minimax.GELUTanhK
	z := w.clamp(x, 20) // s is 0 or 1 beyond
	square := w.mul(z, z)
	u := w.mul(w.polynomial(square, c, c*k), z)
	s, r := w.sigmoid(u, deriv)
	f = w.mul(s, w.max(x, w.f32(-20)))
	if deriv {
		slope := w.polynomial(square, c, 3*c*k)
		d = w.fma(w.mul(z, r), slope, s)
	}
	return f, d
}

// geluTanhGate is geluTanh in float64, for its table.
func geluTanhGate(x float64) (f, d float64) {
	const c, k = minimax.GELUTanhC, minimax.GELUTanhK
	s := 1 / (1 + math.Exp(-c*x*(1+k*x*x)))
	return x * s, s + x*s*(1-s)*c*(1+3*k*x*x)
}

// silu is x·s with s = sigmoid(x); its derivative is s + x·s·(1−s).
func silu(w lanes, x VecVirtual, deriv bool) (f, d VecVirtual) {
	z := w.clamp(x, 100)
	s, r := w.sigmoid(z, deriv)
	f = w.mul(s, w.max(x, w.f32(-100)))
	if deriv {
		d = w.fma(z, r, s)
	}
	return f, d
}

// relu gives NaN for NaN and may keep −0; its derivative is 0 where x ≤ 0, else 1.
func relu(w lanes, x VecVirtual, deriv bool) (f, d VecVirtual) {
	f = w.reg()
	VMAXPS(x, w.zero(), f)
	if deriv {
		const notLessOrEqual = 6
		one := w.load(w.f32(1))
		d = w.reg()
		if w == avx2 {
			VCMPPS(Imm(notLessOrEqual), w.zero(), x, d)
			VANDPS(one, d, d)
		} else {
			k := K()
			VCMPPS(Imm(notLessOrEqual), w.zero(), x, k)
			VMOVAPS_Z(one, k, d)
		}
	}
	return f, d
}

// tanh's derivative is 1 − tanh².
func tanh(w lanes, x VecVirtual, deriv bool) (f, d VecVirtual) {
	f = w.tanh(x)
	if deriv {
		d = w.load(w.f32(1))
		VFNMADD231PS(f, f, d)
	}
	return f, d
}
