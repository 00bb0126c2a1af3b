package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// sums returns n cleared registers.
func (w lanes) sums(n int) []VecVirtual {
	s := make([]VecVirtual, n)
	for i := range s {
		s[i] = w.zero()
	}
	return s
}

func dot(w lanes) {
	function(w, "dot", "x, y []float32", "float32", "returns Σ x_i·y_i.")
	x, y := slice("x"), slice("y")
	sum := w.sums(4)
	w.loop(length("x"), 4, func(s span, j int) {
		VFMADD231PS(s.from(y), s.from(x), sum[j])
	})
	Store(w.reduce(VADDPS, sum).AsX(), ReturnIndex(0))
	ret()
}

func axpy(w lanes) {
	function(w, "axpy", "a float32, x, y []float32", "", "adds a·x to y.")
	x, y, a := slice("x"), slice("y"), w.param("a")
	w.loop(length("x"), 4, func(s span, _ int) {
		v := s.from(y)
		VFMADD231PS(s.from(x), a, v)
		s.to(y, v)
	})
	ret()
}

func mul(w lanes) {
	function(w, "mul", "dst, x []float32", "", "multiplies dst by x, element by element.")
	dst, x := slice("dst"), slice("x")
	w.loop(length("x"), 4, func(s span, _ int) { s.to(dst, w.mul(s.from(dst), s.from(x))) })
	ret()
}

func addTo(w lanes) {
	function(w, "addTo", "dst, x, y []float32", "", "writes x + y to dst.")
	dst, x, y := slice("dst"), slice("x"), slice("y")
	w.loop(length("x"), 4, func(s span, _ int) { s.to(dst, w.add(s.from(x), s.from(y))) })
	ret()
}

// addRows4 reads and writes dst once for four rows.
func addRows4(w lanes) {
	function(w, "addRows4", "dst, x []float32, stride int", "", "adds to dst the four rows of x, in order.")
	dst, stride := slice("dst"), Load(Param("stride"), GP64())
	row := [4]Register{slice("x")}
	SHLQ(Imm(2), stride)
	for r := 1; r < 4; r++ {
		p := GP64()
		LEAQ(Mem{Base: row[r-1], Index: stride, Scale: 1}, p)
		row[r] = p
	}
	w.loop(length("dst"), 1, func(s span, _ int) {
		v := s.from(dst)
		for _, p := range row {
			VADDPS(s.from(p), v, v)
		}
		s.to(dst, v)
	})
	ret()
}

func sumSquares(w lanes, weighted bool) {
	name, params, doc := "sumSquares", "x []float32", "returns Σ x_i²."
	if weighted {
		name, params, doc = "sumSquaresColumns", "x, weights []float32", "returns Σ weights_i·x_i²."
	}
	function(w, name, params, "float64", doc)
	x := slice("x")
	var weights Register
	if weighted {
		weights = slice("weights")
	}
	sum := w.sums(4)
	w.loop(length("x"), 2, func(s span, j int) {
		v := w.halves64(s.from(x))
		f := v
		if weighted {
			f = w.halves64(s.from(weights))
		}
		for h := range v {
			if weighted {
				VMULPD(v[h], f[h], f[h])
			}
			VFMADD231PD(v[h], f[h], sum[2*j+h])
		}
	})
	Store(w.reduce64(VADDPD, sum).AsX(), ReturnIndex(0))
	ret()
}

// halves64 returns the two halves of v as float64s.
func (w lanes) halves64(v VecVirtual) (d [2]VecVirtual) {
	d = [2]VecVirtual{w.reg(), w.reg()}
	if w == avx2 {
		high := XMM()
		VEXTRACTF128(Imm(1), v, high)
		VCVTPS2PD(v.AsX(), d[0])
		VCVTPS2PD(high, d[1])
	} else {
		high := YMM()
		VEXTRACTF64X4(Imm(1), v, high)
		VCVTPS2PD(v.AsY(), d[0])
		VCVTPS2PD(high, d[1])
	}
	return d
}

func maxScaled(w lanes) {
	function(w, "maxScaled", "x []float32, scale float32", "float32", "returns the largest scale·x_i, or −Inf.")
	x, scale := slice("x"), w.param("scale")
	Store(w.largest(x, length("x"), scale).AsX(), ReturnIndex(0))
	ret()
}

// largest returns the largest of n elements scale·x_i in its first lane; a nil
// scale counts as 1.
func (w lanes) largest(x, n Register, scale VecVirtual) VecVirtual {
	low := w.load(w.bits(0xff800000)) // −Inf
	top := make([]VecVirtual, 4)
	for i := range top {
		top[i] = w.reg()
		VMOVAPS(low, top[i])
	}
	w.loop(n, 4, func(s span, j int) {
		v := s.from(x)
		if scale != nil {
			VMULPS(scale, v, v)
		}
		switch {
		case s.mask == nil:
		case w == avx2:
			VBLENDVPS(s.mask, v, low, v)
		default:
			VBLENDMPS(v, low, s.mask, v)
		}
		VMAXPS(v, top[j], top[j])
	})
	return w.reduce(VMAXPS, top)
}

func expSum(w lanes) {
	function(w, "expSum", "x []float32, scale, max float32", "float32",
		"replaces x_i by exp(scale·x_i − max), for exponents up to rounding error\n// above 0, and returns the sum.")
	x, scale, top := slice("x"), w.param("scale"), w.param("max")
	Store(w.exponentials(x, length("x"), scale, top).AsX(), ReturnIndex(0))
	ret()
}

// exponentials replaces n elements by exp(scale·x_i − top) and returns their sum
// in its first lane; a nil scale counts as 1.
func (w lanes) exponentials(x, n Register, scale, top VecVirtual) VecVirtual {
	sum := w.sums(2)
	w.loop(n, 2, func(s span, j int) {
		v := s.from(x)
		if scale != nil {
			VFMSUB213PS(top, scale, v)
		} else {
			VSUBPS(top, v, v)
		}
		v = w.exp(v)
		s.to(x, v)
		s.clear(v)
		VADDPS(v, sum[j], sum[j])
	})
	return w.reduce(VADDPS, sum)
}

// softmax takes row after row in one call, as attention has many short ones. A row
// of up to heldVectors stays in registers; a longer one is passed over three times.
func softmax(w lanes) {
	const heldVectors = 4
	function(w, "softmax", "x []float32, n int", "", "is Softmax, for at least one row.")
	x, end, n := slice("x"), length("x"), Load(Param("n"), GP64())
	LEAQ(Mem{Base: x, Index: end, Scale: 4}, end)
	next := GP64()
	// rows emits body for each row, with the next row's address in next.
	rows := func(body func()) {
		again := label("row")
		Label(again)
		LEAQ(Mem{Base: x, Index: n, Scale: 4}, next)
		body()
		MOVQ(next, x)
		CMPQ(x, end)
		JLT(LabelRef(again))
		ret()
	}
	low := w.load(w.bits(0xff800000)) // −Inf
	for vectors := 1; vectors <= heldVectors; vectors++ {
		more := label("more")
		CMPQ(n, U32(vectors*int(w)))
		JG(LabelRef(more))
		last := GP64()
		LEAQ(Mem{Base: n, Disp: -(vectors - 1) * int(w)}, last)
		h := heldRow{w, w.firstLanes(last), make([]VecVirtual, vectors)}
		for i := range h.v {
			h.v[i] = w.reg()
		}
		h.load(x, low)
		rows(func() {
			// The next row is loaded before this one is stored: a load that meets
			// a store's masked lanes would wait for it.
			ahead := GP64()
			MOVQ(next, ahead)
			CMPQ(next, end)
			CMOVQGE(x, ahead)
			row := heldRow{w, h.mask, make([]VecVirtual, vectors)}
			for i, v := range h.v {
				row.v[i] = w.reg()
				VMOVAPS(v, row.v[i])
			}
			h.load(ahead, low)
			top := w.inAllLanes(row.over(VMAXPS))
			for i, v := range row.v {
				row.v[i] = w.exp(w.sub(v, top))
			}
			inverse := w.inverse(row.over(VADDPS))
			for _, v := range row.v {
				VMULPS(inverse, v, v)
			}
			row.store(x)
		})
		Label(more)
	}
	rows(func() {
		top := w.inAllLanes(w.largest(x, n, nil))
		inverse := w.inverse(w.exponentials(x, n, nil, top))
		w.loop(n, 4, func(s span, _ int) { s.to(x, w.mul(inverse, s.from(x))) })
	})
}

// heldRow is a row in registers, of which the last has the lanes of mask.
type heldRow struct {
	lanes
	mask Register
	v    []VecVirtual
}

func (h heldRow) at(p Register, i int) Mem { return Mem{Base: p, Disp: i * 4 * int(h.lanes)} }

// load fills the registers from p; lanes beyond the row are those of fill.
func (h heldRow) load(p Register, fill VecVirtual) {
	for i, v := range h.v {
		switch {
		case i < len(h.v)-1:
			VMOVUPS(h.at(p, i), v)
		case h.lanes == avx2:
			VMASKMOVPS(h.at(p, i), h.mask, v)
			VBLENDVPS(h.mask, v, fill, v)
		default:
			VMOVAPS(fill, v)
			VMOVUPS(h.at(p, i), h.mask, v)
		}
	}
}

func (h heldRow) store(p Register) {
	for i, v := range h.v {
		switch {
		case i < len(h.v)-1:
			VMOVUPS(v, h.at(p, i))
		case h.lanes == avx2:
			VMASKMOVPS(v, h.mask, h.at(p, i))
		default:
			VMOVUPS(v, h.mask, h.at(p, i))
		}
	}
}

// over returns op over all lanes.
func (h heldRow) over(op func(...Op)) VecVirtual {
	r := h.reg()
	VMOVAPS(h.v[0], r)
	for _, v := range h.v[1:] {
		op(v, r, r)
	}
	return h.reduce(op, []VecVirtual{r})
}

// inverse returns 1/v's first lane in all lanes.
func (w lanes) inverse(v VecVirtual) VecVirtual {
	one := XMM()
	VMOVSS(w.f32(1), one)
	VDIVSS(v.AsX(), one, one)
	return w.inAllLanes(one)
}

func scale(w lanes) {
	function(w, "scale", "x []float32, a float32", "", "multiplies x by a.")
	x, a := slice("x"), w.param("a")
	w.loop(length("x"), 4, func(s span, _ int) { s.to(x, w.mul(a, s.from(x))) })
	ret()
}

func softmaxGrad(w lanes) {
	function(w, "softmaxGrad", "dp, p []float32, scale, dot float32", "", "writes scale·p_i·(dp_i − dot) to dp_i.")
	dp, p, scale, dot := slice("dp"), slice("p"), w.param("scale"), w.param("dot")
	w.loop(length("p"), 4, func(s span, _ int) {
		s.to(dp, w.mul(w.mul(scale, s.from(p)), w.sub(s.from(dp), dot)))
	})
	ret()
}

// inAllLanes copies a vector's first lane to all.
func (w lanes) inAllLanes(v Vec) VecVirtual {
	r := w.reg()
	VBROADCASTSS(v.AsX(), r)
	return r
}

func layerNorm(w lanes) {
	function(w, "layerNorm", "y, norm, x, gain, bias []float32, eps, inverse float32", "float32",
		"is LayerNorm; inverse is 1/len(x).")
	y, norm, x, gain, bias := slice("y"), slice("norm"), slice("x"), slice("gain"), slice("bias")
	n, inverse := length("x"), w.param("inverse")
	sum := w.sums(4)
	w.loop(n, 4, func(s span, j int) { VADDPS(s.from(x), sum[j], sum[j]) })
	mean := w.mul(w.inAllLanes(w.reduce(VADDPS, sum)), inverse)

	squares := w.sums(4)
	w.loop(n, 4, func(s span, j int) {
		d := w.sub(s.from(x), mean)
		s.clear(d)
		VFMADD231PS(d, d, squares[j])
	})
	total := w.reduce(VADDPS, squares)
	variance, root, rstd := XMM(), XMM(), XMM()
	VMULSS(inverse.AsX(), total.AsX(), variance)
	VADDSS(addressOf("eps"), variance, variance)
	VSQRTSS(variance, variance, root)
	VMOVSS(w.f32(1), rstd)
	VDIVSS(root, rstd, rstd)
	Store(rstd, ReturnIndex(0))
	r := w.reg()
	VBROADCASTSS(rstd, r)

	write := func(keep bool) {
		w.loop(n, 2, func(s span, _ int) {
			h := w.mul(w.sub(s.from(x), mean), r)
			if keep {
				s.to(norm, h)
			}
			v := s.from(gain)
			VFMADD213PS(s.from(bias), h, v)
			s.to(y, v)
		})
		ret()
	}
	without := label("without")
	TESTQ(norm, norm)
	JZ(LabelRef(without))
	write(true)
	Label(without)
	write(false)
}

func layerNormGrad(w lanes) {
	function(w, "layerNormGrad", "dx, dgain, dbias, dy, norm, gain []float32, rstd, inverse float32", "",
		"is LayerNormGrad; inverse is 1/len(dy).")
	dx, dgain, dbias := slice("dx"), slice("dgain"), slice("dbias")
	dy, norm, gain := slice("dy"), slice("norm"), slice("gain")
	n := length("dy")
	sum, product := w.sums(2), w.sums(2)
	w.loop(n, 2, func(s span, j int) {
		g, h := s.from(dy), s.from(norm)
		s.to(dbias, w.add(s.from(dbias), g))
		v := s.from(dgain)
		VFMADD231PS(h, g, v)
		s.to(dgain, v)
		d := w.mul(g, s.from(gain))
		VADDPS(d, sum[j], sum[j])
		VFMADD231PS(h, d, product[j])
	})
	inverse, rstd := w.param("inverse"), w.param("rstd")
	a := w.mul(w.inAllLanes(w.reduce(VADDPS, sum)), inverse)
	b := w.mul(w.inAllLanes(w.reduce(VADDPS, product)), inverse)
	w.loop(n, 2, func(s span, _ int) {
		v := s.from(gain)
		VFMSUB213PS(a, s.from(dy), v)
		VFNMADD231PS(s.from(norm), b, v)
		s.to(dx, w.mul(v, rstd))
	})
	ret()
}

func rmsNorm(w lanes) {
	function(w, "rmsNorm", "y, x, gain []float32, rstd float32", "", "writes x_i·rstd·gain_i to y_i.")
	y, x, gain, rstd := slice("y"), slice("x"), slice("gain"), w.param("rstd")
	w.loop(length("x"), 4, func(s span, _ int) { s.to(y, w.mul(w.mul(s.from(x), rstd), s.from(gain))) })
	ret()
}

func rmsNormGrad(w lanes) {
	function(w, "rmsNormGrad", "dx, dgain, dy, x, gain []float32, rstd, inverse float32", "",
		"is RMSNormGrad; inverse is 1/len(dy).")
	dx, dgain, dy, x, gain := slice("dx"), slice("dgain"), slice("dy"), slice("x"), slice("gain")
	n, rstd := length("dy"), w.param("rstd")
	sum := w.sums(2)
	w.loop(n, 2, func(s span, j int) {
		h := w.mul(s.from(x), rstd)
		VMULPS(s.from(dy), h, h)
		s.to(dgain, w.add(s.from(dgain), h))
		VFMADD231PS(s.from(gain), h, sum[j])
	})
	mean := w.mul(w.inAllLanes(w.reduce(VADDPS, sum)), w.param("inverse"))
	along := w.mul(mean, rstd)
	w.loop(n, 2, func(s span, _ int) {
		v := w.mul(s.from(gain), s.from(dy))
		VFNMADD231PS(s.from(x), along, v)
		s.to(dx, w.mul(v, rstd))
	})
	ret()
}

// Indices in kernel.adamConstants.
const (
	adamGradScale = iota
	adamBeta1
	adamRest1
	adamBeta2
	adamRest2
	adamKeep
	adamSize
	adamEps
)

func adam(w lanes, columns bool) {
	name, params, doc := "adamStep", "c [8]float32, w, grad, m, v []float32", "is AdamW.Step with the rate in c."
	if columns {
		name, params, doc = "adamStepColumns", "c [8]float32, w, grad, m, v, rates []float32", "is AdamW.StepColumns."
	}
	function(w, name, params, "", doc)
	field := func(i int) VecVirtual { return w.element("c", i) }
	gradScale, beta1, rest1, beta2 := field(adamGradScale), field(adamBeta1), field(adamRest1), field(adamBeta2)
	rest2, keep, size, eps := field(adamRest2), field(adamKeep), field(adamSize), field(adamEps)
	weight, grad, m, v := slice("w"), slice("grad"), slice("m"), slice("v")
	var rates Register
	if columns {
		rates = slice("rates")
	}
	w.loop(length("grad"), 1, func(s span, _ int) {
		g := w.mul(s.from(grad), gradScale)
		first := w.mul(beta1, s.from(m))
		VFMADD231PS(rest1, g, first)
		s.to(m, first)
		VMULPS(g, g, g)
		second := w.mul(beta2, s.from(v))
		VFMADD231PS(rest2, g, second)
		s.to(v, second)
		VSQRTPS(second, second)
		VADDPS(eps, second, second)
		VMULPS(size, first, first)
		if columns {
			VMULPS(s.from(rates), first, first)
		}
		VDIVPS(second, first, first)
		x := s.from(weight)
		VFMSUB213PS(first, keep, x)
		s.to(weight, x)
	})
	ret()
}

// addressOf returns the address of a parameter.
func addressOf(name string) Mem {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return a.Addr
}
