package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of kernel.tileArgs.
const (
	argA = 8 * iota
	argB
	argC
	argK
	argARow  // A's row stride, bytes
	argAK    // A's k stride, bytes
	argBK    // B's k stride, bytes
	argCRow  // C's row stride, bytes
	argATile // from one row tile of A to the next, bytes
	argTiles // row tiles to do
	argN     // columns to store
	argAlpha // float32
	argAccum = argAlpha + 4
	argMask  = argAlpha + 8 // pointer to n ones, then zeros, as int32
)

// tileAVX2 emits the microkernel of rows×16 elements: C = Alpha·A·B, or C +=
// with accumulate. The sums live in 2·rows of the 16 registers; each step of k
// takes two loads of B and a broadcast of A per row.
func tileAVX2(rows int) {
	TEXT(fmt.Sprintf("tile%dx16AVX2", rows), NOSPLIT, "func(args *byte)")
	Pragma("noescape")
	args, a, b, c := RDI, RAX, RBX, RCX
	r1, r3, r5, ak, bk := R8, R9, R10, R11, R12
	k, p, crow := R13, RSI, RDX
	MOVQ(NewParamAddr("args", 0), args)
	field := func(off int) Mem { return Mem{Base: args, Disp: off} }
	MOVQ(field(argA), a)
	MOVQ(field(argC), c)
	MOVQ(field(argARow), r1)
	LEAQ(Mem{Base: r1, Index: r1, Scale: 2}, r3)
	LEAQ(Mem{Base: r1, Index: r1, Scale: 4}, r5)
	MOVQ(field(argAK), ak)
	MOVQ(field(argBK), bk)
	MOVQ(field(argCRow), crow)
	row := func(i int) Mem {
		switch i {
		case 0:
			return Mem{Base: p}
		case 3:
			return Mem{Base: p, Index: r3, Scale: 1}
		case 5:
			return Mem{Base: p, Index: r5, Scale: 1}
		}
		return Mem{Base: p, Index: r1, Scale: uint8(i)}
	}
	Y := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	b0, b1 := Y12, Y13

	Label("tile")
	// C's lines are wanted at the end of the loop over k.
	MOVQ(c, p)
	for i := range rows {
		PREFETCHT0(Mem{Base: p})
		PREFETCHT0(Mem{Base: p, Disp: 60})
		if i < rows-1 {
			ADDQ(crow, p)
		}
	}
	for i := range 2 * rows {
		VXORPS(Y[i], Y[i], Y[i])
	}
	MOVQ(a, p)
	MOVQ(field(argB), b)
	step := func() {
		VMOVUPS(Mem{Base: b}, b0)
		VMOVUPS(Mem{Base: b, Disp: 32}, b1)
		for i := range rows {
			x := Y[14+i%2]
			VBROADCASTSS(row(i), x)
			VFMADD231PS(b0, x, Y[2*i])
			VFMADD231PS(b1, x, Y[2*i+1])
		}
		ADDQ(ak, p)
		ADDQ(bk, b)
	}
	MOVQ(field(argK), k)
	SUBQ(Imm(4), k)
	JLT(LabelRef("rest"))
	Label("four")
	for range 4 {
		step()
	}
	SUBQ(Imm(4), k)
	JGE(LabelRef("four"))
	Label("rest")
	ADDQ(Imm(4), k)
	JLE(LabelRef("sums"))
	Label("one")
	step()
	DECQ(k)
	JNE(LabelRef("one"))

	Label("sums")
	VBROADCASTSS(field(argAlpha), b0)
	CMPQ(field(argN), Imm(16))
	JLT(LabelRef("narrow"))
	CMPL(field(argAccum), Imm(0))
	JNE(LabelRef("accumulate"))
	for i := range rows {
		VMULPS(b0, Y[2*i], Y[2*i])
		VMULPS(b0, Y[2*i+1], Y[2*i+1])
		VMOVUPS(Y[2*i], Mem{Base: c})
		VMOVUPS(Y[2*i+1], Mem{Base: c, Disp: 32})
		ADDQ(crow, c)
	}
	JMP(LabelRef("next"))
	Label("accumulate")
	for i := range rows {
		VFMADD213PS(Mem{Base: c}, b0, Y[2*i])
		VFMADD213PS(Mem{Base: c, Disp: 32}, b0, Y[2*i+1])
		VMOVUPS(Y[2*i], Mem{Base: c})
		VMOVUPS(Y[2*i+1], Mem{Base: c, Disp: 32})
		ADDQ(crow, c)
	}
	Label("next")
	ADDQ(field(argATile), a)
	DECQ(field(argTiles))
	JNE(LabelRef("tile"))
	VZEROUPPER()
	RET()

	// Fewer than 16 columns. The masked store is slow on AMD, so the row is
	// stored in pieces of 8, 4, 2 and 1.
	Label("narrow")
	n := k
	MOVQ(field(argN), n)
	MOVQ(field(argMask), b)
	CMPL(field(argAccum), Imm(0))
	JEQ(LabelRef("scale"))
	MOVQ(c, p)
	VMOVUPS(Mem{Base: b}, b1)
	for i := range rows {
		VMASKMOVPS(Mem{Base: p}, b1, Y14)
		VFMADD213PS(Y14, b0, Y[2*i])
		if i < rows-1 {
			ADDQ(crow, p)
		}
	}
	MOVQ(c, p)
	VMOVUPS(Mem{Base: b, Disp: 32}, b1)
	for i := range rows {
		VMASKMOVPS(Mem{Base: p, Disp: 32}, b1, Y14)
		VFMADD213PS(Y14, b0, Y[2*i+1])
		if i < rows-1 {
			ADDQ(crow, p)
		}
	}
	JMP(LabelRef("pieces"))
	Label("scale")
	for i := range 2 * rows {
		VMULPS(b0, Y[i], Y[i])
	}
	Label("pieces")
	for i := range rows {
		lo, x := Y[2*i], Y[2*i].AsX()
		l := func(s string) string { return fmt.Sprintf("%s%d", s, i) }
		MOVQ(c, p)
		BTQ(Imm(3), n)
		JCC(LabelRef(l("four_")))
		VMOVUPS(lo, Mem{Base: p})
		VMOVAPS(Y[2*i+1], lo)
		ADDQ(Imm(32), p)
		Label(l("four_"))
		BTQ(Imm(2), n)
		JCC(LabelRef(l("two_")))
		VMOVUPS(x, Mem{Base: p})
		VEXTRACTF128(Imm(1), lo, x)
		ADDQ(Imm(16), p)
		Label(l("two_"))
		BTQ(Imm(1), n)
		JCC(LabelRef(l("one_")))
		VMOVLPS(x, Mem{Base: p})
		VPERMILPD(Imm(1), x, x)
		ADDQ(Imm(8), p)
		Label(l("one_"))
		BTQ(Imm(0), n)
		JCC(LabelRef(l("done_")))
		VMOVSS(x, Mem{Base: p})
		Label(l("done_"))
		ADDQ(crow, c)
	}
	JMP(LabelRef("next"))
}

// transposeAVX2 writes 8 rows of k floats as k groups of 8.
func transposeAVX2() {
	TEXT("transpose8AVX2", NOSPLIT, "func(dst *float32, stride int, rows *[8]*float32, k int, mask *int32)")
	Pragma("noescape")
	dst, stride, rows, k := RDI, RSI, RAX, RBX
	Load(Param("dst"), dst)
	Load(Param("stride"), stride)
	Load(Param("rows"), rows)
	Load(Param("k"), k)
	src := []GPPhysical{R8, R9, R10, R11, R12, R13, RCX, RDX}
	for i, r := range src {
		MOVQ(Mem{Base: rows, Disp: 8 * i}, r)
	}
	off := rows
	XORQ(off, off)
	Y := []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}
	// Rows i and i+4 share registers, so that only in-lane shuffles are left.
	shuffle := func() {
		a, t := Y[:8], Y[8:]
		for i := range 4 {
			VUNPCKLPS(a[2*i+1], a[2*i], t[2*i])
			VUNPCKHPS(a[2*i+1], a[2*i], t[2*i+1])
		}
		for h := range 2 {
			t, a := t[4*h:], a[4*h:]
			VUNPCKLPD(t[2], t[0], a[0])
			VUNPCKHPD(t[2], t[0], a[1])
			VUNPCKLPD(t[3], t[1], a[2])
			VUNPCKHPD(t[3], t[1], a[3])
		}
	}
	// a[0..3] hold columns 0..3 (low lanes) and 4..7 (high) of rows 0..3, a[4..7] of rows 4..7.
	store := func(guard bool) {
		for j := range 4 {
			VINSERTF128(Imm(1), Y[4+j].AsX(), Y[j], Y[8+j])
			VPERM2F128(Imm(0x31), Y[4+j], Y[j], Y[12+j])
		}
		for j := range 8 {
			VMOVUPS(Y[8+j], Mem{Base: dst})
			if guard {
				DECQ(k)
				JEQ(LabelRef("done"))
			}
			ADDQ(stride, dst)
		}
	}
	SUBQ(Imm(8), k)
	JLT(LabelRef("rest"))
	Label("eight")
	for i, r := range src {
		VMOVUPS(Mem{Base: r, Index: off, Scale: 1}, Y[i])
	}
	shuffle()
	store(false)
	ADDQ(Imm(32), off)
	SUBQ(Imm(8), k)
	JGE(LabelRef("eight"))
	Label("rest")
	ADDQ(Imm(8), k)
	JLE(LabelRef("done"))
	m := stride
	Load(Param("mask"), m)
	VMOVUPS(Mem{Base: m}, Y15)
	Load(Param("stride"), stride)
	for i, r := range src {
		VMASKMOVPS(Mem{Base: r, Index: off, Scale: 1}, Y15, Y[i])
	}
	shuffle()
	store(true)
	Label("done")
	VZEROUPPER()
	RET()
}

// copyPanelsAVX2 copies k rows into panels of 16 columns; a last, narrower
// panel is filled up with zeros.
func copyPanelsAVX2() {
	TEXT("copyPanels16AVX2", NOSPLIT, "func(dst, src *float32, stride, panel, panels, k int, mask *int32)")
	Pragma("noescape")
	dst, src, stride, panel, k, mask := RDI, RSI, RAX, RBX, RDX, R11
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("stride"), stride)
	Load(Param("panel"), panel)
	Load(Param("k"), k)
	Load(Param("mask"), mask)
	d, s, p := R8, R9, R10
	TESTQ(mask, mask)
	JEQ(LabelRef("row"))
	VMOVUPS(Mem{Base: mask}, Y2)
	VMOVUPS(Mem{Base: mask, Disp: 32}, Y3)
	Label("row")
	MOVQ(dst, d)
	MOVQ(src, s)
	Load(Param("panels"), p)
	TESTQ(p, p)
	JEQ(LabelRef("edge"))
	Label("panel")
	VMOVUPS(Mem{Base: s}, Y0)
	VMOVUPS(Mem{Base: s, Disp: 32}, Y1)
	VMOVUPS(Y0, Mem{Base: d})
	VMOVUPS(Y1, Mem{Base: d, Disp: 32})
	ADDQ(Imm(64), s)
	ADDQ(panel, d)
	DECQ(p)
	JNE(LabelRef("panel"))
	Label("edge")
	TESTQ(mask, mask)
	JEQ(LabelRef("next"))
	VMASKMOVPS(Mem{Base: s}, Y2, Y0)
	VMASKMOVPS(Mem{Base: s, Disp: 32}, Y3, Y1)
	VMOVUPS(Y0, Mem{Base: d})
	VMOVUPS(Y1, Mem{Base: d, Disp: 32})
	Label("next")
	ADDQ(Imm(64), dst)
	ADDQ(stride, src)
	DECQ(k)
	JNE(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// copyTileAVX2 copies k groups of up to 8 floats, writing 8 each time: dst needs
// that much room behind its last group.
func copyTileAVX2() {
	TEXT("copyTileAVX2", NOSPLIT, "func(dst *float32, dstStride int, src *float32, srcStride, k int, mask *int32)")
	Pragma("noescape")
	dst, src, ds, ss, k, mask := RDI, RSI, RAX, RBX, RDX, R8
	Load(Param("dst"), dst)
	Load(Param("dstStride"), ds)
	Load(Param("src"), src)
	Load(Param("srcStride"), ss)
	Load(Param("k"), k)
	Load(Param("mask"), mask)
	VMOVUPS(Mem{Base: mask}, Y0)
	Label("group")
	VMASKMOVPS(Mem{Base: src}, Y0, Y1)
	VMOVUPS(Y1, Mem{Base: dst})
	ADDQ(ds, dst)
	ADDQ(ss, src)
	DECQ(k)
	JNE(LabelRef("group"))
	VZEROUPPER()
	RET()
}

// roundBF16AVX2 rounds n floats, a multiple of 8, to bfloat16 in place.
func roundBF16AVX2() {
	TEXT("roundBF16AVX2", NOSPLIT, "func(x *float32, n int)")
	Pragma("noescape")
	x, n, t := RDI, RSI, RAX
	Load(Param("x"), x)
	Load(Param("n"), n)
	constant := func(v uint32, y VecPhysical) {
		MOVL(U32(v), t.As32())
		VMOVD(t.As32(), y.AsX())
		VPBROADCASTD(y.AsX(), y)
	}
	constant(0x7fff, Y5)
	constant(1, Y6)
	constant(0xffff0000, Y7)
	constant(0x400000, Y8)
	Label("loop")
	VMOVDQU(Mem{Base: x}, Y0)
	VPSRLD(Imm(16), Y0, Y1)
	VPAND(Y6, Y1, Y1)
	VPADDD(Y5, Y1, Y1)
	VPADDD(Y0, Y1, Y1)
	VCMPPS(Imm(3), Y0, Y0, Y2) // unordered: NaN
	VPOR(Y8, Y0, Y3)
	VPBLENDVB(Y2, Y3, Y1, Y1)
	VPAND(Y7, Y1, Y1)
	VMOVDQU(Y1, Mem{Base: x})
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JGT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// epilogueAVX2 applies to n elements of C, in this order and skipping nil
// operands: + bias, + add, · scale, · mul.
func epilogueAVX2() {
	TEXT("epilogueAVX2", NOSPLIT, "func(c, bias, add, scale, mul *float32, n int, mask *int32)")
	Pragma("noescape")
	c, bias, add, scale, mul, n, m := RDI, RSI, RAX, RBX, RCX, RDX, R8
	Load(Param("c"), c)
	Load(Param("bias"), bias)
	Load(Param("add"), add)
	Load(Param("scale"), scale)
	Load(Param("mul"), mul)
	Load(Param("n"), n)
	Load(Param("mask"), m)
	off := R9
	XORQ(off, off)
	body := func(name string, masked bool) {
		at := func(base Register) Mem { return Mem{Base: base, Index: off, Scale: 4} }
		load := func(base Register) {
			if masked {
				VMASKMOVPS(at(base), Y2, Y1)
			} else {
				VMOVUPS(at(base), Y1)
			}
		}
		load(c)
		VMOVAPS(Y1, Y0)
		for i, o := range []struct {
			r Register
			f func(...Op)
		}{{bias, VADDPS}, {add, VADDPS}, {scale, VMULPS}, {mul, VMULPS}} {
			skip := fmt.Sprintf("%s%d", name, i)
			TESTQ(o.r, o.r)
			JEQ(LabelRef(skip))
			load(o.r)
			o.f(Y1, Y0, Y0)
			Label(skip)
		}
		if masked {
			VMASKMOVPS(Y0, Y2, at(c))
		} else {
			VMOVUPS(Y0, at(c))
		}
	}
	SUBQ(Imm(8), n)
	JLT(LabelRef("rest"))
	Label("eight")
	body("full", false)
	ADDQ(Imm(8), off)
	SUBQ(Imm(8), n)
	JGE(LabelRef("eight"))
	Label("rest")
	ADDQ(Imm(8), n)
	JLE(LabelRef("done"))
	VMOVUPS(Mem{Base: m}, Y2)
	body("part", true)
	Label("done")
	VZEROUPPER()
	RET()
}
