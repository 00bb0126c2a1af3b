package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

var ymm = []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}

// transposeAVX2 writes 8 rows of k floats as k groups of 8.
func (g *gen) transposeAVX2() {
	g.function("transpose8AVX2", "func(dst *float32, stride int, rows *[16]*float32, k int, mask *int32)")
	dst, stride, rows, k := RDI, RSI, RAX, RBX
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("stride"), stride)
	g.Load(g.Param("rows"), rows)
	g.Load(g.Param("k"), k)
	src := []GPPhysical{R8, R9, R10, R11, R12, R13, RCX, RDX}
	for i, r := range src {
		g.MOVQ(Mem{Base: rows, Disp: 8 * i}, r)
	}
	off := rows
	g.XORQ(off, off)
	// Rows i and i+4 share registers, so that only in-lane shuffles are left.
	shuffle := func() {
		a, t := ymm[:8], ymm[8:]
		for i := range 4 {
			g.VUNPCKLPS(a[2*i+1], a[2*i], t[2*i])
			g.VUNPCKHPS(a[2*i+1], a[2*i], t[2*i+1])
		}
		for h := range 2 {
			t, a := t[4*h:], a[4*h:]
			g.VUNPCKLPD(t[2], t[0], a[0])
			g.VUNPCKHPD(t[2], t[0], a[1])
			g.VUNPCKLPD(t[3], t[1], a[2])
			g.VUNPCKHPD(t[3], t[1], a[3])
		}
	}
	// a[0..3] hold columns 0..3 (low lanes) and 4..7 (high) of rows 0..3, a[4..7] of rows 4..7.
	store := func(guard bool) {
		for j := range 4 {
			g.VINSERTF128(Imm(1), ymm[4+j].AsX(), ymm[j], ymm[8+j])
			g.VPERM2F128(Imm(0x31), ymm[4+j], ymm[j], ymm[12+j])
		}
		for j := range 8 {
			g.VMOVUPS(ymm[8+j], Mem{Base: dst})
			if guard {
				g.DECQ(k)
				g.JEQ(LabelRef("done"))
			}
			g.ADDQ(stride, dst)
		}
	}
	g.SUBQ(Imm(8), k)
	g.JLT(LabelRef("rest"))
	g.Label("eight")
	for i, r := range src {
		g.VMOVUPS(Mem{Base: r, Index: off, Scale: 1}, ymm[i])
	}
	shuffle()
	store(false)
	g.ADDQ(Imm(32), off)
	g.SUBQ(Imm(8), k)
	g.JGE(LabelRef("eight"))
	g.Label("rest")
	g.ADDQ(Imm(8), k)
	g.JLE(LabelRef("done"))
	m := stride
	g.Load(g.Param("mask"), m)
	g.VMOVUPS(Mem{Base: m}, Y15)
	g.Load(g.Param("stride"), stride)
	for i, r := range src {
		g.VMASKMOVPS(Mem{Base: r, Index: off, Scale: 1}, Y15, ymm[i])
	}
	shuffle()
	store(true)
	g.Label("done")
	g.VZEROUPPER()
	g.RET()
}

// copyPanelsAVX2 copies k rows into panels of nr columns; a last, narrower panel
// is filled up with zeros.
func (g *gen) copyPanelsAVX2(nr int) {
	g.function(fmt.Sprintf("copyPanels%dAVX2", nr), "func(dst, src *float32, stride, panel, panels, k int, mask *int32)")
	dst, src, stride, panel, k, mask := RDI, RSI, RAX, RBX, RDX, R11
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("stride"), stride)
	g.Load(g.Param("panel"), panel)
	g.Load(g.Param("k"), k)
	g.Load(g.Param("mask"), mask)
	d, s, p, ahead := R8, R9, R10, R12
	g.MOVQ(stride, ahead)
	g.SHLQ(Imm(3), ahead)
	n := nr / 8
	x, m := ymm[:n], ymm[n:2*n]
	at := func(r Register, i int) Mem { return Mem{Base: r, Disp: 32 * i} }
	g.TESTQ(mask, mask)
	g.JEQ(LabelRef("row"))
	for i := range n {
		g.VMOVUPS(at(mask, i), m[i])
	}
	g.Label("row")
	g.MOVQ(dst, d)
	g.MOVQ(src, s)
	g.Load(g.Param("panels"), p)
	g.TESTQ(p, p)
	g.JEQ(LabelRef("edge"))
	g.Label("panel")
	for i := 0; i < n; i += 2 { // rows lie too far apart for the processor to guess
		g.PREFETCHT0(Mem{Base: s, Index: ahead, Scale: 1, Disp: 32 * i})
	}
	for i := range n {
		g.VMOVUPS(at(s, i), x[i])
	}
	for i := range n {
		g.VMOVUPS(x[i], at(d, i))
	}
	g.ADDQ(U32(4*nr), s)
	g.ADDQ(panel, d)
	g.DECQ(p)
	g.JNE(LabelRef("panel"))
	g.Label("edge")
	g.TESTQ(mask, mask)
	g.JEQ(LabelRef("next"))
	for i := range n {
		g.VMASKMOVPS(at(s, i), m[i], x[i])
	}
	for i := range n {
		g.VMOVUPS(x[i], at(d, i))
	}
	g.Label("next")
	g.ADDQ(U32(4*nr), dst)
	g.ADDQ(stride, src)
	g.DECQ(k)
	g.JNE(LabelRef("row"))
	g.VZEROUPPER()
	g.RET()
}

// rounder sets Y12…Y15 up and returns a function that rounds x to bfloat16,
// nearest even, in its upper half; the lower half is left undefined. It uses t and u.
func (g *gen) rounder() func(x, t, u VecPhysical) {
	constant := func(v uint32, y VecPhysical) {
		g.MOVL(U32(v), EAX)
		g.VMOVD(EAX, y.AsX())
		g.VPBROADCASTD(y.AsX(), y)
	}
	constant(0x7fff, Y12)
	constant(1, Y13)
	constant(0xffff0000, Y14)
	constant(0x400000, Y15) // what keeps a NaN a NaN
	return func(x, t, u VecPhysical) {
		g.VCMPPS(Imm(3), x, x, t) // unordered
		g.VPSRLD(Imm(16), x, u)
		g.VPAND(Y13, u, u)
		g.VPADDD(Y12, u, u)
		g.VPADDD(x, u, u)
		g.VPOR(Y15, x, x)
		g.VPBLENDVB(t, x, u, x)
	}
}

// roundBF16AVX2 rounds n floats, a multiple of 8, to bfloat16 in place.
func (g *gen) roundBF16AVX2() {
	g.function("roundBF16AVX2", "func(x *float32, n int)")
	x, n := RDI, RSI
	g.Load(g.Param("x"), x)
	g.Load(g.Param("n"), n)
	round := g.rounder()
	g.Label("loop")
	g.VMOVUPS(Mem{Base: x}, Y0)
	round(Y0, Y1, Y2)
	g.VPAND(Y14, Y0, Y0)
	g.VMOVUPS(Y0, Mem{Base: x})
	g.ADDQ(Imm(32), x)
	g.SUBQ(Imm(8), n)
	g.JGT(LabelRef("loop"))
	g.VZEROUPPER()
	g.RET()
}

// joinRowsAVX2 joins each two rows of nr floats that hold bfloat16 values.
func (g *gen) joinRowsAVX2(nr int) {
	g.function(fmt.Sprintf("joinRows%dAVX2", nr), "func(dst, src *float32, pairs int)")
	dst, src, pairs := RDI, RSI, RAX
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("pairs"), pairs)
	g.Label("pair")
	for i := range nr / 8 {
		g.VMOVUPS(Mem{Base: src, Disp: 32 * i}, ymm[i])
		g.VPSRLD(Imm(16), ymm[i], ymm[i])
		g.VORPS(Mem{Base: src, Disp: 4*nr + 32*i}, ymm[i], ymm[i])
		g.VMOVUPS(ymm[i], Mem{Base: dst, Disp: 32 * i})
	}
	g.ADDQ(U32(4*nr), dst)
	g.ADDQ(U32(8*nr), src)
	g.DECQ(pairs)
	g.JNE(LabelRef("pair"))
	g.VZEROUPPER()
	g.RET()
}

// epilogueAVX2 applies to n elements of C, in this order and skipping nil
// operands: + bias, + add, · scale, · mul.
func (g *gen) epilogueAVX2() {
	g.function("epilogueAVX2", "func(c, bias, add, scale, mul *float32, n int, mask *int32)")
	c, bias, add, scale, mul, n, m := RDI, RSI, RAX, RBX, RCX, RDX, R8
	g.Load(g.Param("c"), c)
	g.Load(g.Param("bias"), bias)
	g.Load(g.Param("add"), add)
	g.Load(g.Param("scale"), scale)
	g.Load(g.Param("mul"), mul)
	g.Load(g.Param("n"), n)
	g.Load(g.Param("mask"), m)
	off := R9
	g.XORQ(off, off)
	body := func(name string, masked bool) {
		at := func(base Register) Mem { return Mem{Base: base, Index: off, Scale: 4} }
		load := func(base Register) {
			if masked {
				g.VMASKMOVPS(at(base), Y2, Y1)
			} else {
				g.VMOVUPS(at(base), Y1)
			}
		}
		load(c)
		g.VMOVAPS(Y1, Y0)
		for i, o := range []struct {
			r Register
			f func(...Op)
		}{{bias, g.VADDPS}, {add, g.VADDPS}, {scale, g.VMULPS}, {mul, g.VMULPS}} {
			skip := fmt.Sprintf("%s%d", name, i)
			g.TESTQ(o.r, o.r)
			g.JEQ(LabelRef(skip))
			load(o.r)
			o.f(Y1, Y0, Y0)
			g.Label(skip)
		}
		if masked {
			g.VMASKMOVPS(Y0, Y2, at(c))
		} else {
			g.VMOVUPS(Y0, at(c))
		}
	}
	g.SUBQ(Imm(8), n)
	g.JLT(LabelRef("rest"))
	g.Label("eight")
	body("full", false)
	g.ADDQ(Imm(8), off)
	g.SUBQ(Imm(8), n)
	g.JGE(LabelRef("eight"))
	g.Label("rest")
	g.ADDQ(Imm(8), n)
	g.JLE(LabelRef("done"))
	g.VMOVUPS(Mem{Base: m}, Y2)
	body("part", true)
	g.Label("done")
	g.VZEROUPPER()
	g.RET()
}
