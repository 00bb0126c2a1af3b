package main

import (
	"mlpfusion/kernel/generate/minimax"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// exp returns e^x for x ≤ 0, and 0 where the result would be below the normal
// numbers (x < −87.7); NaN gives NaN.
//
// With n = x/ln 2 rounded and r = x − n·ln 2, |r| ≤ ln 2 / 2, it is 2^n·e^r. e^r =
// 1 + r + r²·P(r), where P is a minimax polynomial of relative error 3.1e-9.
func (w lanes) exp(x VecVirtual) VecVirtual {
	// Adding 1.5·2^23 + 127 leaves n + 127, the exponent of 2^n, in the low bits.
	const magic = 1.5*(1<<23) + 127
	// −88 rounds to n = −127, whose exponent field is 0: the result is 0.
	x = w.max(x, w.f32(-88))
	n := w.fma(x, w.f32(minimax.Log2E), w.load(w.f32(magic)))
	power := w.shl(n, 23)
	n = w.sub(n, w.f32(magic))
	// ln 2 in two parts, the first with zeros at its end.
	VFNMADD231PS(w.f32(minimax.Ln2High), n, x)
	VFNMADD231PS(w.f32(minimax.Ln2Low), n, x)
	p := w.polynomial(x, minimax.Exp...)
	return w.mul(p, power)
}

// sigmoid returns s = 1/(1+e^−x) and, when asked to, s·(1−s): with e = e^−|x| they
// are 1/(1+e) or e/(1+e), and e/(1+e)².
func (w lanes) sigmoid(x VecVirtual, deriv bool) (s, d VecVirtual) {
	one := w.load(w.f32(1))
	e := w.exp(w.or(x, w.signs()))
	top, bottom := w.bySign(x, e, one), w.add(one, e)
	if !deriv {
		return w.div(top, bottom), nil
	}
	r := w.div(one, bottom)
	return w.mul(top, r), w.mul(w.mul(e, r), r)
}

// tanh returns the hyperbolic tangent: (1−e^−2|x|)/(1+e^−2|x|) with x's sign, and
// near 0, where that cancels, x + x³·P(x²), where P is a minimax polynomial of
// relative error 4.1e-9 in the result.
func (w lanes) tanh(x VecVirtual) VecVirtual {
	one := w.load(w.f32(1))
	negative := w.or(x, w.signs())
	e := w.exp(w.add(negative, negative))
	far := w.div(w.sub(one, e), w.add(one, e))
	square := w.mul(x, x)
	p := w.polynomial(square, minimax.Tanh...)
	p = w.fma(w.mul(square, x), p, x)
	return w.or(w.bySign(w.add(negative, w.f32(minimax.TanhNear)), far, p), w.and(x, w.signs()))
}

// normal returns Φ(x), the normal distribution, and its density φ(x), for |x| ≤ 20:
//
//	φ(x) = e^(−x²/2)/√(2π)
//	Φ(−|x|) = e^(−x²/2)·t·P(t),  t = 1/(1 + 0.35·|x|)
//
// the form of Abramowitz and Stegun, 7.1.26, where P is a minimax polynomial of
// relative error 3.2e-8.
func (w lanes) normal(x VecVirtual) (cdf, pdf VecVirtual) {
	one := w.load(w.f32(1))
	e := w.exp(w.mul(w.mul(x, w.f32(-0.5)), x))
	a := w.and(x, w.bits(1<<31-1))
	t := w.div(one, w.fma(a, w.f32(minimax.NormalT), one))
	p := w.polynomial(t, minimax.Normal...)
	q := w.mul(w.mul(p, t), e)
	return w.bySign(x, q, w.sub(one, q)), w.mul(e, w.f32(minimax.InverseRoot2π))
}

// clamp returns x within ±limit; NaN stays NaN.
func (w lanes) clamp(x VecVirtual, limit float64) VecVirtual {
	return w.min(w.max(x, w.f32(-limit)), w.f32(limit))
}

func (w lanes) signs() Mem { return w.bits(1 << 31) }
