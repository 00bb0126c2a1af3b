package main

import "mlpfusion/kernel/generate/minimax"

// exp returns e^x for x ≤ 0, and 0 where the result would be below the normal
// numbers (x < −87.7); NaN gives NaN.
//
// With n = x/ln 2 rounded and r = x − n·ln 2, |r| ≤ ln 2 / 2, it is 2^n·e^r.
func (f *function) exp(x vec) vec {
	// Adding 1.5·2^23 + 127 leaves n + 127, the exponent of 2^n, in the low bits.
	const magic = 1.5*(1<<23) + 127
	// −88 rounds to n = −127, whose exponent field is 0: the result is 0.
	x = f.max(x, -88)
	n := f.fma(x, f.number(minimax.Log2E), f.everywhere32(magic))
	power := f.op("shl", n, 23)
	n = f.sub(n, f.everywhere32(magic))
	r := f.fms(n, f.number(minimax.Ln2High), x)
	r = f.fms(n, f.number(minimax.Ln2Low), r)
	return f.mul(f.polynomial(r, minimax.Exp...), power)
}

// sigmoid returns s = 1/(1+e^−x) and, when asked to, s·(1−s): with e = e^−|x| they
// are 1/(1+e) or e/(1+e), and e/(1+e)².
func (f *function) sigmoid(x vec, deriv bool) (s, d vec) {
	one := f.everywhere32(1)
	e := f.exp(f.negative(x))
	top, bottom := f.bySign(x, e, one), f.add(one, e)
	if !deriv {
		return f.div(top, bottom), 0
	}
	r := f.div(one, bottom)
	return f.mul(top, r), f.mul(f.mul(e, r), r)
}

// tanh returns the hyperbolic tangent: (1−e^−2|x|)/(1+e^−2|x|) with x's sign, and a
// polynomial near 0, where that cancels.
func (f *function) tanh(x vec) vec {
	one := f.everywhere32(1)
	negative := f.negative(x)
	e := f.exp(f.add(negative, negative))
	far := f.div(f.sub(one, e), f.add(one, e))
	square := f.mul(x, x)
	near := f.fma(f.mul(square, x), f.polynomial(square, minimax.Tanh...), x)
	size := f.bySign(f.add(negative, f.everywhere32(minimax.TanhNear)), far, near)
	return f.op("orr", size, f.op("and", x, f.everywhere(signBit)))
}

// normal returns Φ(x), the normal distribution, and its density φ(x), for |x| ≤ 20.
func (f *function) normal(x vec) (cdf, pdf vec) {
	one := f.everywhere32(1)
	e := f.exp(f.mul(f.mul(x, f.number(-0.5)), x))
	// 1 + 0.35·|x|, as −|x| is at hand
	t := f.div(one, f.fms(f.negative(x), f.number(minimax.NormalT), one))
	q := f.mul(f.mul(f.polynomial(t, minimax.Normal...), t), e)
	return f.bySign(x, q, f.sub(one, q)), f.mul(e, f.number(minimax.InverseRoot2π))
}
