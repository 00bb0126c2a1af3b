package main

import "mlpfusion/kernel/generate/minimax"

// An activation returns σ(x) and, when asked to, σ'(x).
var activations = []struct {
	name string
	emit func(f *function, x vec, deriv bool) (y, d vec)
}{{"gelu", gelu}, {"geluTanh", geluTanh}, {"relu", relu}, {"silu", silu}, {"tanh", tanh}}

// activationFunctions returns the functions of each activation.
func activationFunctions() (all []*function) {
	for _, a := range activations {
		plain := define(a.name+"NEON", "v []float32", "", "replaces v_i by σ(v_i).")
		plain.loop("v", 1, func(s span, _ int) {
			y, _ := a.emit(s.function, s.from("v"), false)
			s.to("v", y)
		})
		deriv := define(a.name+"DerivNEON", "v, deriv []float32", "", "replaces v_i by σ(v_i) and writes σ'(v_i) to deriv_i.")
		deriv.loop("v", 1, func(s span, _ int) {
			y, d := a.emit(s.function, s.from("v"), true)
			s.to("v", y)
			s.to("deriv", d)
		})
		gated := define(a.name+"GatedNEON", "y, gate, up []float32", "", "writes σ(gate_i)·up_i to y_i.")
		gated.loop("gate", 1, func(s span, _ int) {
			y, _ := a.emit(s.function, s.from("gate"), false)
			s.to("y", s.mul(y, s.from("up")))
		})
		grad := define(a.name+"GatedGradNEON", "dgate, dup, gate, up, dy []float32", "",
			"writes dy_i·up_i·σ'(gate_i) to dgate_i and dy_i·σ(gate_i) to dup_i.")
		grad.loop("gate", 1, func(s span, _ int) {
			y, d := a.emit(s.function, s.from("gate"), true)
			g := s.from("dy")
			dgate := s.mul(s.mul(d, s.from("up")), g)
			dup := s.mul(y, g)
			s.to("dgate", dgate)
			s.to("dup", dup)
		})
		all = append(all, plain, deriv, gated, grad)
	}
	return all
}

// gelu is x·Φ(x), and its derivative Φ(x) + x·φ(x). Beyond ±20 φ is 0 and Φ 0 or 1;
// the clamping makes ±Inf come out right.
func gelu(f *function, x vec, deriv bool) (y, d vec) {
	z := f.clamp(x, 20)
	cdf, pdf := f.normal(z)
	y = f.mul(cdf, f.max(x, -20))
	if deriv {
		d = f.fma(z, pdf, cdf)
	}
	return y, d
}

// geluTanh is x·s with s = (1+tanh u)/2 = sigmoid(2u), 2u = c·(x + k·x³); its derivative
// is s + x·s·(1−s)·(2u)'.
func geluTanh(f *function, x vec, deriv bool) (y, d vec) {
	const c, k = minimax.GELUTanhC, minimax.GELUTanhK
	z := f.clamp(x, 20) // s is 0 or 1 beyond
	square := f.mul(z, z)
	s, r := f.sigmoid(f.mul(f.polynomial(square, c, c*k), z), deriv)
	y = f.mul(s, f.max(x, -20))
	if deriv {
		d = f.fma(f.mul(z, r), f.polynomial(square, c, 3*c*k), s)
	}
	return y, d
}

// silu is x·s with s = sigmoid(x); its derivative is s + x·s·(1−s).
func silu(f *function, x vec, deriv bool) (y, d vec) {
	z := f.clamp(x, 100)
	s, r := f.sigmoid(z, deriv)
	y = f.mul(s, f.max(x, -100))
	if deriv {
		d = f.fma(z, r, s)
	}
	return y, d
}

// relu gives NaN for NaN; its derivative is 0 where x ≤ 0, else 1.
func relu(f *function, x vec, deriv bool) (y, d vec) {
	y = f.max(x, 0)
	if deriv {
		d = f.op("bic", f.everywhere32(1), f.op("fcmle/zero", x))
	}
	return y, d
}

// tanh's derivative is 1 − tanh².
func tanh(f *function, x vec, deriv bool) (y, d vec) {
	y = f.tanh(x)
	if deriv {
		d = f.fms(y, y, f.everywhere32(1))
	}
	return y, d
}
