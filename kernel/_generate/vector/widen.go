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
