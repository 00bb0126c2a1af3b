package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// widen leaves what does not fill a vector to its caller.
func widen(w lanes) {
	function(w, "widen", "dst []float32, src []uint16", "", "writes the values of bfloat16 bits to the whole vectors of dst.")
	dst, src, n := slice("dst"), slice("src"), length("dst")
	w.wholeVectors(n, 4, func(s span, _ int) {
		v := w.reg()
		VPMOVZXWD(Mem{Base: src, Index: s.i, Scale: 2, Disp: s.disp / 2}, v)
		VPSLLD(Imm(16), v, v)
		s.to(dst, v)
	})
	ret()
}

// widenBytes leaves what does not fill a vector to its caller.
func widenBytes(w lanes) {
	function(w, "widenBytes", "dst []float32, src []int8, factor float32", "", "writes the whole numbers times the factor to the whole vectors of dst.")
	dst, src, n, factor := slice("dst"), slice("src"), length("dst"), w.param("factor")
	w.wholeVectors(n, 4, func(s span, _ int) {
		v := w.reg()
		VPMOVSXBD(Mem{Base: src, Index: s.i, Scale: 1, Disp: s.disp / 4}, v)
		VCVTDQ2PS(v, v)
		s.to(dst, w.mul(v, factor))
	})
	ret()
}
