package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// The conversions do whole vectors and return the number of elements done.

func toBF16(w lanes) {
	function(w, "toBF16", "dst []uint16, src []float32", "int", "converts a multiple of its lanes and returns how many.")
	dst, src, rest := slice("dst"), slice("src"), length("src")
	one, half, quiet := w.load(w.bits(1)), w.load(w.bits(0x7fff)), w.load(w.bits(0x40))
	done := w.wholeVectors(rest, 1, func(s span, _ int) {
		v := s.from(src)
		truncated := w.shr(v, 16)
		rounded := w.reg()
		if w == avx2 {
			VPAND(one, truncated, rounded)
		} else {
			VPANDD(one, truncated, rounded)
		}
		VPADDD(half, rounded, rounded)
		VPADDD(v, rounded, rounded)
		VPSRLD(Imm(16), rounded, rounded)
		// NaN is cut off and made quiet instead.
		nan := w.or(truncated, quiet)
		to := Mem{Base: dst, Index: s.i, Scale: 2}
		if w == avx2 {
			unordered, high := w.reg(), XMM()
			VCMPPS(Imm(3), v, v, unordered)
			VBLENDVPS(unordered, nan, rounded, rounded)
			VEXTRACTI128(Imm(1), rounded, high)
			VPACKUSDW(high, rounded.AsX(), high)
			VMOVDQU(high, to)
		} else {
			k, narrow := K(), YMM()
			VCMPPS(Imm(3), v, v, k)
			VBLENDMPS(nan, rounded, k, rounded)
			VPMOVDW(rounded, narrow)
			VMOVDQU(narrow, to)
		}
	})
	Store(done, ReturnIndex(0))
	ret()
}

func fromBF16(w lanes) {
	function(w, "fromBF16", "dst []float32, src []uint16", "int", "converts a multiple of its lanes and returns how many.")
	dst, src, rest := slice("dst"), slice("src"), length("src")
	done := w.wholeVectors(rest, 1, func(s span, _ int) {
		v := w.reg()
		VPMOVZXWD(Mem{Base: src, Index: s.i, Scale: 2}, v)
		VPSLLD(Imm(16), v, v)
		s.to(dst, v)
	})
	Store(done, ReturnIndex(0))
	ret()
}
