package main

import "fmt"

// vectorFunctions returns the functions on slices.
func vectorFunctions() []*function {
	return append([]*function{
		dot(), axpy(), mul(), addTo(), addRows4(), scale(), sumSquares(false), sumSquares(true),
		maxScaled(), expSum(), softmaxGrad(), layerNorm(), layerNormGrad(), rmsNorm(), rmsNormGrad(),
		adam(false), adam(true), dropout(), widen(), widenBytes(),
	}, activationFunctions()...)
}

func dot() *function {
	f := define("dotNEON", "x, y []float32", "float32", "returns Σ x_i·y_i.")
	sum := f.sums(4)
	f.loop("x", 4, func(s span, j int) { f.do("fmla", sum[j], s.from("x"), s.from("y")) })
	f.give(f.over("fadd", sum))
	return f
}

func axpy() *function {
	f := define("axpyNEON", "a float32, x, y []float32", "", "adds a·x to y.")
	a := f.scalar("a")
	f.loop("x", 4, func(s span, _ int) { s.to("y", s.fma(s.from("x"), a, s.from("y"))) })
	return f
}

func mul() *function {
	f := define("mulNEON", "dst, x []float32", "", "multiplies dst by x, element by element.")
	f.loop("x", 4, func(s span, _ int) { s.to("dst", s.mul(s.from("dst"), s.from("x"))) })
	return f
}

func addTo() *function {
	f := define("addToNEON", "dst, x, y []float32", "", "writes x + y to dst.")
	f.loop("x", 4, func(s span, _ int) { s.to("dst", s.add(s.from("x"), s.from("y"))) })
	return f
}

// addRows4 reads and writes dst once for four rows.
func addRows4() *function {
	f := define("addRows4NEON", "dst, x []float32, stride int", "", "adds to dst the four rows of x, in order.")
	row := func(r int) string { return fmt.Sprint("row ", r) }
	for r := range 4 {
		f.starts[row(r)] = func(p gp) {
			f.line("MOVD x_base+%d(FP), %s", f.param("x").at, p)
			f.line("MOVD stride+%d(FP), R17", f.param("stride").at)
			for range r {
				f.line("ADD R17<<2, %s, %s", p, p)
			}
		}
	}
	f.loop("dst", 1, func(s span, _ int) {
		v := s.from("dst")
		for r := range 4 {
			v = s.add(v, s.from(row(r)))
		}
		s.to("dst", v)
	})
	return f
}

func scale() *function {
	f := define("scaleNEON", "x []float32, a float32", "", "multiplies x by a.")
	a := f.scalar("a")
	f.loop("x", 4, func(s span, _ int) { s.to("x", s.mul(s.from("x"), a)) })
	return f
}

func sumSquares(weighted bool) *function {
	name, params, doc := "sumSquaresNEON", "x []float32", "returns Σ x_i²."
	if weighted {
		name, params, doc = "sumSquaresColumnsNEON", "x, weights []float32", "returns Σ weights_i·x_i²."
	}
	f := define(name, params, "float64", doc)
	sum := f.sums(4)
	halves := func(v vec) [2]vec { return [2]vec{f.op("fcvtl", v), f.op("fcvtl2", v)} } // as float64s
	f.loop("x", 2, func(s span, j int) {
		v := halves(s.from("x"))
		w := v
		if weighted {
			w = halves(s.from("weights"))
		}
		for h := range v {
			if weighted {
				w[h] = f.op("fmul/64", w[h], v[h])
			}
			f.do("fmla/64", sum[2*j+h], w[h], v[h])
		}
	})
	f.do("fadd/64", sum[0], sum[0], sum[2])
	f.do("fadd/64", sum[1], sum[1], sum[3])
	f.do("fadd/64", sum[0], sum[0], sum[1])
	f.give(f.op("faddp/64", sum[0], sum[0]))
	return f
}

func maxScaled() *function {
	f := define("maxScaledNEON", "x []float32, scale float32", "float32", "returns the largest scale·x_i, or −Inf.")
	scale := f.scalar("scale")
	top := make([]vec, 4)
	for i := range top {
		top[i] = f.keep(f.all(f.bits(0xff800000))) // −Inf
	}
	f.loop("x", 4, func(s span, j int) { f.do("fmax", top[j], top[j], s.mul(s.fromOver("x"), scale)) })
	f.give(f.over("fmax", top))
	return f
}

func expSum() *function {
	f := define("expSumNEON", "x []float32, scale, max float32", "float32",
		"replaces x_i by exp(scale·x_i − max), for exponents up to rounding error\n// above 0, and returns the sum.")
	scale := f.scalar("scale")
	least := f.keep(f.op("fneg", f.scalar("max")))
	sum := f.sums(2)
	f.loop("x", 2, func(s span, j int) {
		v := s.exp(s.fma(s.from("x"), scale, least))
		s.to("x", v)
		f.do("fadd", sum[j], sum[j], s.clear(v))
	})
	f.give(f.over("fadd", sum))
	return f
}

func softmaxGrad() *function {
	f := define("softmaxGradNEON", "dp, p []float32, scale, dot float32", "", "writes scale·p_i·(dp_i − dot) to dp_i.")
	scale, dot := f.scalar("scale"), f.scalar("dot")
	f.loop("p", 4, func(s span, _ int) {
		s.to("dp", s.mul(s.mul(s.from("p"), scale), s.sub(s.from("dp"), dot)))
	})
	return f
}

func layerNorm() *function {
	f := define("layerNormNEON", "y, norm, x, gain, bias []float32, eps, inverse float32", "float32", "is LayerNorm; inverse is 1/len(x).")
	inverse := f.scalar("inverse")
	sum := f.sums(4)
	f.loop("x", 4, func(s span, j int) { f.do("fadd", sum[j], sum[j], s.from("x")) })
	mean := f.keep(f.mul(f.over("fadd", sum), inverse))
	squares := f.sums(4)
	f.loop("x", 4, func(s span, j int) {
		d := s.clear(s.sub(s.from("x"), mean))
		f.do("fmla", squares[j], d, d)
	})
	variance := f.mul(f.over("fadd", squares), inverse)
	rstd := f.keep(f.div(f.everywhere32(1), f.op("fsqrt", f.add(variance, f.scalar("eps")))))
	f.give(rstd)
	write := func(keep bool) {
		f.loop("x", 2, func(s span, _ int) {
			h := s.mul(s.sub(s.from("x"), mean), rstd)
			if keep {
				s.to("norm", h)
			}
			s.to("y", s.fma(h, s.from("gain"), s.from("bias")))
		})
		f.line("RET")
	}
	f.line("MOVD norm_base+%d(FP), R17", f.param("norm").at)
	f.line("CBZ R17, without")
	write(true)
	f.place("without")
	write(false)
	return f
}

func layerNormGrad() *function {
	f := define("layerNormGradNEON", "dx, dgain, dbias, dy, norm, gain []float32, rstd, inverse float32", "", "is LayerNormGrad; inverse is 1/len(dy).")
	sum, product := f.sums(2), f.sums(2)
	f.loop("dy", 2, func(s span, j int) {
		g, h := s.from("dy"), s.from("norm")
		s.to("dbias", s.add(s.from("dbias"), g))
		s.to("dgain", s.fma(g, h, s.from("dgain")))
		d := s.mul(g, s.from("gain"))
		f.do("fadd", sum[j], sum[j], d)
		f.do("fmla", product[j], d, h)
	})
	inverse, rstd := f.scalar("inverse"), f.scalar("rstd")
	a := f.keep(f.mul(f.over("fadd", sum), inverse))
	b := f.keep(f.mul(f.over("fadd", product), inverse))
	f.loop("dy", 2, func(s span, _ int) {
		d := s.sub(s.mul(s.from("gain"), s.from("dy")), a)
		s.to("dx", s.mul(s.fms(s.from("norm"), b, d), rstd))
	})
	return f
}

func rmsNorm() *function {
	f := define("rmsNormNEON", "y, x, gain []float32, rstd float32", "", "writes x_i·rstd·gain_i to y_i.")
	rstd := f.scalar("rstd")
	f.loop("x", 4, func(s span, _ int) { s.to("y", s.mul(s.mul(s.from("x"), rstd), s.from("gain"))) })
	return f
}

func rmsNormGrad() *function {
	f := define("rmsNormGradNEON", "dx, dgain, dy, x, gain []float32, rstd, inverse float32", "", "is RMSNormGrad; inverse is 1/len(dy).")
	rstd := f.scalar("rstd")
	sum := f.sums(2)
	f.loop("dy", 2, func(s span, j int) {
		h := s.mul(s.mul(s.from("x"), rstd), s.from("dy"))
		s.to("dgain", s.add(s.from("dgain"), h))
		f.do("fmla", sum[j], h, s.from("gain"))
	})
	along := f.keep(f.mul(f.mul(f.over("fadd", sum), f.scalar("inverse")), rstd))
	f.loop("dy", 2, func(s span, _ int) {
		d := s.mul(s.from("gain"), s.from("dy"))
		s.to("dx", s.mul(s.fms(s.from("x"), along, d), rstd))
	})
	return f
}

func adam(columns bool) *function {
	name, params, doc := "adamStepNEON", "c [8]float32, w, grad, m, v []float32", "is AdamW.Step with the rate in c."
	if columns {
		name, params, doc = "adamStepColumnsNEON", "c [8]float32, w, grad, m, v, rates []float32", "is AdamW.StepColumns."
	}
	f := define(name, params, "", doc)
	c := f.array("c", 8) // kernel.adamConstants
	gradScale, beta1, rest1, beta2, rest2, left, size, eps := c[0], c[1], c[2], c[3], c[4], c[5], c[6], f.keep(f.all(c[7]))
	f.loop("grad", 1, func(s span, _ int) {
		g := s.mul(s.from("grad"), gradScale)
		first := s.fma(g, rest1, s.mul(s.from("m"), beta1))
		s.to("m", first)
		second := s.fma(s.mul(g, g), rest2, s.mul(s.from("v"), beta2))
		s.to("v", second)
		move := s.mul(first, size)
		if columns {
			move = s.mul(move, s.from("rates"))
		}
		move = s.div(move, s.add(s.op("fsqrt", second), eps))
		s.to("w", s.sub(s.mul(s.from("w"), left), move))
	})
	return f
}

// dropout makes the same bits as kernel.dropKeys.hash.
func dropout() *function {
	f := define("dropApplyNEON", "k [4]uint32, dst, src []float32, at uint32", "", "is DropoutApply for keys and positions from at on.")
	k := f.array("k", 4) // kernel.dropKeys.words
	k0, k1, least, scale := f.keep(f.all(k[0])), f.keep(f.all(k[1])), f.keep(f.all(k[2])), k[3]
	// The positions of the next vector's elements.
	position := f.keep(f.op("add", f.scalar("at"), f.quad(0, 1, 2, 3)))
	step, mul0, mul1, mul2 := f.everywhere(4), f.everywhere(0xed5ad4bb), f.everywhere(0xac4c1b51), f.everywhere(0x31848bab)
	f.loop("src", 2, func(s span, _ int) {
		fold := func(x vec, n int) vec { return f.op("eor", x, f.op("ushr", x, n)) }
		x := f.op("eor", position, k0)
		if s.bytes == 16 {
			f.do("add", position, position, step)
		} else {
			f.do("add", position, position, f.everywhere(uint32(s.bytes/4)))
		}
		x = f.op("mul", fold(x, 17), mul0)
		x = f.op("eor", x, k1)
		x = f.op("mul", fold(x, 11), mul1)
		x = f.op("mul", fold(x, 15), mul2)
		x = fold(x, 14)
		s.to("dst", f.op("bic", s.mul(s.from("src"), scale), f.op("cmgt", least, x)))
	})
	return f
}

// widenBytes leaves what does not fill vectors to its caller.
func widenBytes() *function {
	f := define("widenBytesNEON", "dst []float32, src []int8, factor float32", "", "writes the whole numbers times the factor to dst, 16 at a time.")
	factor := f.scalar("factor")
	dst, src, n := f.word("dst"), f.word("src"), f.length("dst")
	f.line("CBZ %s, done", n)
	f.place("again")
	bytes := f.value()
	f.into(fmt.Sprintf("FMOVQ.P 16(%s), F?", src), bytes)
	var v [4]vec
	for h, widen := range []string{"sxtl", "sxtl2"} {
		words := f.op(widen+"/8", bytes)
		for i, widen := range []string{"sxtl", "sxtl2"} {
			v[2*h+i] = f.mul(f.op("scvtf", f.op(widen, words)), factor)
		}
	}
	f.store16(dst, v)
	f.line("ADD $64, %s", dst)
	f.line("SUBS $16, %s", n)
	f.line("BGT again")
	f.place("done")
	return f
}

// widen leaves what does not fill vectors to its caller.
func widen() *function {
	f := define("widenNEON", "dst []float32, src []uint16", "", "writes the values of bfloat16 bits to dst, 16 at a time.")
	dst, src, n := f.word("dst"), f.word("src"), f.length("dst")
	f.line("CBZ %s, done", n)
	f.place("again")
	x := []vec{f.value(), f.value()}
	f.into(fmt.Sprintf("FLDPQ.P 32(%s), (F?, F?)", src), x...)
	f.store16(dst, [4]vec{f.op("shll", x[0]), f.op("shll2", x[0]), f.op("shll", x[1]), f.op("shll2", x[1])})
	f.line("ADD $64, %s", dst)
	f.line("SUBS $16, %s", n)
	f.line("BGT again")
	f.place("done")
	return f
}
