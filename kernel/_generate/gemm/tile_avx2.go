package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of kernel.tileArgs.
const (
	argA = 8 * iota
	argB
	argC
	argK
	argARow   // A's row stride, bytes
	argBK     // B's k stride, bytes
	argCRow   // C's row stride, bytes
	argATile  // from one row tile of A to the next, bytes
	argTiles  // row tiles to do
	argN      // columns to store
	argAlpha  // float32
	argAccum  = argAlpha + 4
	argMask   = argAlpha + 8  // pointer to n ones, then zeros, as int32
	argRows   = argAlpha + 16 // rows of a tile (AMX)
	argConfig = argAlpha + 24 // pointer to a tile configuration (AMX)
	argTemp   = argAlpha + 32 // pointer to 32×32 floats (AMX)

	argStream    = argAlpha + 40 // C goes past the caches
	argFetch     = argAlpha + 48 // steps of k before the end where C is asked for
	argNext      = argAlpha + 56 // what to ask for on the way, 128 bytes at a time:
	argNextRow   = argAlpha + 64 // from one place to the next, bytes
	argNextRows  = argAlpha + 72 // places in a column
	argNextAt    = argAlpha + 80 // of them left in this one
	argNextBack  = argAlpha + 88 // from behind a column to the next, bytes
	argNextCount = argAlpha + 96 // places left in all
)

// rowOf addresses row i ≤ 5 from base on, disp bytes into it; r1, r3 and r5 hold
// this many strides.
func rowOf(base, r1, r3, r5 Register, i, disp int) Mem {
	switch i {
	case 0:
		return Mem{Base: base, Disp: disp}
	case 3:
		return Mem{Base: base, Index: r3, Scale: 1, Disp: disp}
	case 5:
		return Mem{Base: base, Index: r5, Scale: 1, Disp: disp}
	}
	return Mem{Base: base, Index: r1, Scale: uint8(i), Disp: disp}
}

// upperHalves states the constant that keeps the upper half of each of eight words.
func (g *gen) upperHalves() {
	g.upper = g.StaticGlobal("upperHalves")
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for range 8 {
		g.AppendDatum(U32(0xffff0000))
	}
}

// tileAVX2 emits the microkernel of rows×16 elements: C = Alpha·A·B, or C +=
// with accumulate. The sums live in 2·rows of the 16 registers; each step of k
// takes two loads of B and a broadcast of A per row. For HalvesAVX2 an element of B is a
// pair of bfloat16, of k and k+1, and a step takes two float32s of A; for BytesAVX2 B is
// int8 with factors (see bytesLoop).
func (g *gen) tileAVX2(rows int, name string) {
	elements := 1 // of A in a step
	if name == "HalvesAVX2" {
		elements = 2
	}
	g.function(fmt.Sprintf("tile%dx16%s", rows, name), "func(args *byte)")
	args, a, b, c := RDI, RAX, RBX, RCX
	r1, r3, r5, bk := R8, R9, R10, R12
	k, p, crow := R13, RSI, RDX
	g.MOVQ(NewParamAddr("args", 0), args)
	field := func(off int) Mem { return Mem{Base: args, Disp: off} }
	g.MOVQ(field(argA), a)
	g.MOVQ(field(argC), c)
	g.MOVQ(field(argARow), r1)
	g.LEAQ(Mem{Base: r1, Index: r1, Scale: 2}, r3)
	g.LEAQ(Mem{Base: r1, Index: r1, Scale: 4}, r5)
	g.MOVQ(field(argBK), bk)
	g.MOVQ(field(argCRow), crow)
	row := func(i, step int) Mem { return rowOf(p, r1, r3, r5, i, 4*step) }
	b0, b1 := Y12, Y13

	g.Label("tile")
	// C's lines are wanted at the end of the loop over k.
	g.MOVQ(c, p)
	for i := range rows {
		g.PREFETCHT0(Mem{Base: p})
		g.PREFETCHT0(Mem{Base: p, Disp: 60})
		if i < rows-1 {
			g.ADDQ(crow, p)
		}
	}
	for i := range 2 * rows {
		g.VXORPS(ymm[i], ymm[i], ymm[i])
	}
	g.MOVQ(a, p)
	g.MOVQ(field(argB), b)
	each := func(element int) {
		for i := range rows {
			x := ymm[14+i%2]
			g.VBROADCASTSS(row(i, element), x)
			g.VFMADD231PS(b0, x, ymm[2*i])
			g.VFMADD231PS(b1, x, ymm[2*i+1])
		}
	}
	step := func(u int) {
		for e := range elements {
			g.VMOVUPS(Mem{Base: b}, b0)
			g.VMOVUPS(Mem{Base: b, Disp: 32}, b1)
			switch {
			case elements == 1:
			case e == 0: // the lower halves, widened, and then the upper ones
				g.VPSLLD(Imm(16), b0, b0)
				g.VPSLLD(Imm(16), b1, b1)
			default:
				g.VPAND(g.upper, b0, b0)
				g.VPAND(g.upper, b1, b1)
			}
			each(u*elements + e)
		}
		g.ADDQ(bk, b)
	}
	g.MOVQ(field(argK), k)
	if name == "BytesAVX2" {
		scales := R11
		advance := func(steps int) { g.ADDQ(Imm(uint64(4*steps)), p) }
		g.bytesLoop(16, b, k, R12, scales, advance, func(u int) {
			for h, x := range []VecPhysical{b0, b1} {
				g.VPMOVSXBD(Mem{Base: b, Disp: 16*u + 8*h}, x)
				g.VCVTDQ2PS(x, x)
				g.VMULPS(Mem{Base: scales, Disp: 32 * h}, x, x)
			}
			each(u)
		})
		g.JMP(LabelRef("sums"))
	}
	g.SUBQ(Imm(4), k)
	g.JLT(LabelRef("rest"))
	g.Label("four")
	for u := range 4 {
		step(u)
	}
	g.ADDQ(Imm(uint64(16*elements)), p)
	g.SUBQ(Imm(4), k)
	g.JGE(LabelRef("four"))
	g.Label("rest")
	g.ADDQ(Imm(4), k)
	g.JLE(LabelRef("sums"))
	g.Label("one")
	step(0)
	g.ADDQ(Imm(uint64(4*elements)), p)
	g.DECQ(k)
	g.JNE(LabelRef("one"))

	g.Label("sums")
	g.VBROADCASTSS(field(argAlpha), b0)
	g.CMPQ(field(argN), Imm(16))
	g.JLT(LabelRef("narrow"))
	g.CMPL(field(argAccum), Imm(0))
	g.JNE(LabelRef("accumulate"))
	for i := range rows {
		g.VMULPS(b0, ymm[2*i], ymm[2*i])
		g.VMULPS(b0, ymm[2*i+1], ymm[2*i+1])
		g.VMOVUPS(ymm[2*i], Mem{Base: c})
		g.VMOVUPS(ymm[2*i+1], Mem{Base: c, Disp: 32})
		g.ADDQ(crow, c)
	}
	g.JMP(LabelRef("next"))
	g.Label("accumulate")
	for i := range rows {
		g.VFMADD213PS(Mem{Base: c}, b0, ymm[2*i])
		g.VFMADD213PS(Mem{Base: c, Disp: 32}, b0, ymm[2*i+1])
		g.VMOVUPS(ymm[2*i], Mem{Base: c})
		g.VMOVUPS(ymm[2*i+1], Mem{Base: c, Disp: 32})
		g.ADDQ(crow, c)
	}
	g.Label("next")
	g.ADDQ(field(argATile), a)
	g.DECQ(field(argTiles))
	g.JNE(LabelRef("tile"))
	g.VZEROUPPER()
	g.RET()

	// Fewer than 16 columns. The masked store is slow on AMD, so the row is
	// stored in pieces of 8, 4, 2 and 1.
	g.Label("narrow")
	n := k
	g.MOVQ(field(argN), n)
	g.MOVQ(field(argMask), b)
	g.CMPL(field(argAccum), Imm(0))
	g.JEQ(LabelRef("scale"))
	g.MOVQ(c, p)
	g.VMOVUPS(Mem{Base: b}, b1)
	for i := range rows {
		g.VMASKMOVPS(Mem{Base: p}, b1, Y14)
		g.VFMADD213PS(Y14, b0, ymm[2*i])
		if i < rows-1 {
			g.ADDQ(crow, p)
		}
	}
	g.MOVQ(c, p)
	g.VMOVUPS(Mem{Base: b, Disp: 32}, b1)
	for i := range rows {
		g.VMASKMOVPS(Mem{Base: p, Disp: 32}, b1, Y14)
		g.VFMADD213PS(Y14, b0, ymm[2*i+1])
		if i < rows-1 {
			g.ADDQ(crow, p)
		}
	}
	g.JMP(LabelRef("pieces"))
	g.Label("scale")
	for i := range 2 * rows {
		g.VMULPS(b0, ymm[i], ymm[i])
	}
	g.Label("pieces")
	for i := range rows {
		lo, x := ymm[2*i], ymm[2*i].AsX()
		l := func(s string) string { return fmt.Sprintf("%s%d", s, i) }
		g.MOVQ(c, p)
		g.BTQ(Imm(3), n)
		g.JCC(LabelRef(l("four_")))
		g.VMOVUPS(lo, Mem{Base: p})
		g.VMOVAPS(ymm[2*i+1], lo)
		g.ADDQ(Imm(32), p)
		g.Label(l("four_"))
		g.BTQ(Imm(2), n)
		g.JCC(LabelRef(l("two_")))
		g.VMOVUPS(x, Mem{Base: p})
		g.VEXTRACTF128(Imm(1), lo, x)
		g.ADDQ(Imm(16), p)
		g.Label(l("two_"))
		g.BTQ(Imm(1), n)
		g.JCC(LabelRef(l("one_")))
		g.VMOVLPS(x, Mem{Base: p})
		g.VPERMILPD(Imm(1), x, x)
		g.ADDQ(Imm(8), p)
		g.Label(l("one_"))
		g.BTQ(Imm(0), n)
		g.JCC(LabelRef(l("done_")))
		g.VMOVSS(x, Mem{Base: p})
		g.Label(l("done_"))
		g.ADDQ(crow, c)
	}
	g.JMP(LabelRef("next"))
}
