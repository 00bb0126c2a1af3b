package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Indices in what kernel.dropKeys.words returns.
const (
	dropK0 = iota
	dropK1
	dropLeast
	dropScale
)

// The multipliers of kernel.dropKeys.hash.
const (
	dropMul0 = 0xed5ad4bb
	dropMul1 = 0xac4c1b51
	dropMul2 = 0x31848bab
)

// dropout makes the same bits as dropKeys.hash.
func dropout(w lanes) {
	function(w, "dropApply", "k [4]uint32, dst, src []float32, at uint32", "", "is DropoutApply for keys and positions from at on.")
	field := func(i int) VecVirtual { return w.element("k", i) }
	k0, k1, least, scale := field(dropK0), field(dropK1), field(dropLeast), field(dropScale)
	dst, src := slice("dst"), slice("src")
	mul0, mul1, mul2 := w.load(w.bits(dropMul0)), w.load(w.bits(dropMul1)), w.load(w.bits(dropMul2))
	// The positions of the next vector's elements.
	position := w.broadcast(addressOf("at"))
	VPADDD(w.counting(), position, position)
	w.loop(length("src"), 2, func(s span, _ int) {
		x := w.xor(position, k0)
		VPADDD(w.bits(uint32(w)), position, position)
		x = w.xor(x, w.shr(x, 17))
		VPMULLD(mul0, x, x)
		x = w.xor(x, k1)
		x = w.xor(x, w.shr(x, 11))
		VPMULLD(mul1, x, x)
		x = w.xor(x, w.shr(x, 15))
		VPMULLD(mul2, x, x)
		x = w.xor(x, w.shr(x, 14))
		s.to(dst, w.keepUnlessLess(x, least, w.mul(scale, s.from(src))))
	})
	ret()
}

// counting returns the address of 0, 1, 2 …
func (w lanes) counting() Mem {
	if counting == nil {
		m := GLOBL("counting", RODATA|NOPTR)
		for i := range int(avx512) {
			DATA(4*i, U32(i))
		}
		counting = &m
	}
	return *counting
}

var counting *Mem
