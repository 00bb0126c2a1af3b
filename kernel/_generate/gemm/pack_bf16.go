package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The functions that pack bfloat16 operands, for machines with AVX512_BF16. A
// word is a pair of bfloat16, of k in its lower half and of k+1 in its upper.

// joinOrder states the constant that takes halfwords i and 16+i to word i.
func (g *gen) joinOrder() {
	g.order = g.StaticGlobal("joinOrder")
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		g.AppendDatum(U32(i | (16+i)<<16))
	}
}

// joiner sets Z31 up and returns a function that rounds a row's 16 floats (a)
// and those of the next row (b) and joins them to 16 words (dst).
func (g *gen) joiner() func(a, b, dst VecPhysical) {
	g.VMOVDQU32(g.order, Z31)
	return func(a, b, dst VecPhysical) {
		g.vcvtne2ps2bf16(a, b, dst)
		g.VPERMW(dst, Z31, dst)
	}
}

// columnMask sets a mask register for the first n of 16 elements, n ≤ 16.
func (g *gen) columnMask(n, t Register, k OpmaskPhysical) {
	g.MOVL(U32(0xffff), t.(GPPhysical).As32())
	g.BZHIL(n.(GPPhysical).As32(), t.(GPPhysical).As32(), t.(GPPhysical).As32())
	g.KMOVW(t.(GPPhysical).As32(), k)
}

// eachPair emits a loop over pairs of k rows: body is given row and next; of an
// odd k the last row stands alone and body is told so.
func (g *gen) eachPair(k, row, next, stride GPPhysical, body func(name string, alone bool)) {
	g.SUBQ(Imm(2), k)
	g.JLT(LabelRef("odd"))
	g.Label("pair")
	g.LEAQ(Mem{Base: row, Index: stride, Scale: 1}, next)
	body("pair", false)
	g.LEAQ(Mem{Base: row, Index: stride, Scale: 2}, row)
	g.SUBQ(Imm(2), k)
	g.JGE(LabelRef("pair"))
	g.Label("odd")
	g.ADDQ(Imm(2), k)
	g.JEQ(LabelRef("done"))
	body("odd", true)
	g.Label("done")
	g.VZEROUPPER()
	g.RET()
}

// pairPanelsBF16 packs k rows of n columns into panels of 32 words a pair of
// rows; a last, narrower panel is filled up with zeros.
func (g *gen) pairPanelsBF16() {
	g.function("pairPanels32BF16", "func(dst, src *float32, stride, panel, k, n int)")
	dst, src, stride, panel, k, n := RDI, RSI, RAX, RBX, RDX, RCX
	d, p, next, rest, ahead := R8, R9, R10, R11, R12
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("stride"), stride)
	g.Load(g.Param("panel"), panel)
	g.Load(g.Param("k"), k)
	g.Load(g.Param("n"), n)
	join := g.joiner()
	g.MOVQ(n, rest)
	g.ANDQ(Imm(31), rest)
	g.columnMasks(rest, R13, R14)
	g.MOVQ(stride, ahead)
	g.SHLQ(Imm(3), ahead)
	g.SHRQ(Imm(5), n)
	row := R14
	g.eachPair(k, src, next, stride, func(name string, alone bool) {
		g.MOVQ(dst, d)
		g.MOVQ(src, row)
		if alone {
			g.VPXORD(Z2, Z2, Z2)
			g.VPXORD(Z3, Z3, Z3)
		}
		store := func() {
			join(Z0, Z2, Z4)
			join(Z1, Z3, Z5)
			g.VMOVUPS(Z4, Mem{Base: d})
			g.VMOVUPS(Z5, Mem{Base: d, Disp: 64})
		}
		g.MOVQ(n, p)
		g.TESTQ(p, p)
		g.JEQ(LabelRef(name + "edge"))
		g.Label(name + "panel")
		g.VMOVUPS(Mem{Base: row}, Z0)
		g.VMOVUPS(Mem{Base: row, Disp: 64}, Z1)
		g.PREFETCHT0(Mem{Base: row, Index: ahead, Scale: 1})
		g.PREFETCHT0(Mem{Base: row, Index: ahead, Scale: 1, Disp: 64})
		if !alone {
			g.VMOVUPS(Mem{Base: next}, Z2)
			g.VMOVUPS(Mem{Base: next, Disp: 64}, Z3)
			g.PREFETCHT0(Mem{Base: next, Index: ahead, Scale: 1})
			g.PREFETCHT0(Mem{Base: next, Index: ahead, Scale: 1, Disp: 64})
		}
		store()
		g.ADDQ(U32(128), row)
		g.ADDQ(U32(128), next)
		g.ADDQ(panel, d)
		g.DECQ(p)
		g.JNE(LabelRef(name + "panel"))
		g.Label(name + "edge")
		g.TESTQ(rest, rest)
		g.JEQ(LabelRef(name + "next"))
		g.VMOVUPS_Z(Mem{Base: row}, K1, Z0)
		g.VMOVUPS_Z(Mem{Base: row, Disp: 64}, K2, Z1)
		if !alone {
			g.VMOVUPS_Z(Mem{Base: next}, K1, Z2)
			g.VMOVUPS_Z(Mem{Base: next, Disp: 64}, K2, Z3)
		}
		store()
		g.Label(name + "next")
		g.ADDQ(U32(128), dst)
	})
}

// pairRowBF16 rounds a row of n floats to bfloat16; a last half word is zero.
func (g *gen) pairRowBF16() {
	g.function("pairRowBF16", "func(dst, src *float32, n int)")
	dst, src, n := RDI, RSI, RDX
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("n"), n)
	g.SUBQ(Imm(32), n)
	g.JLT(LabelRef("rest"))
	g.Label("words")
	g.VMOVUPS(Mem{Base: src}, Z0)
	g.VMOVUPS(Mem{Base: src, Disp: 64}, Z1)
	g.vcvtne2ps2bf16(Z0, Z1, Z2)
	g.VMOVUPS(Z2, Mem{Base: dst})
	g.ADDQ(U32(128), src)
	g.ADDQ(Imm(64), dst)
	g.SUBQ(Imm(32), n)
	g.JGE(LabelRef("words"))
	g.Label("rest")
	g.ADDQ(Imm(32), n)
	g.JLE(LabelRef("done"))
	g.columnMasks(n, RAX, RBX)
	g.VMOVUPS_Z(Mem{Base: src}, K1, Z0)
	g.VMOVUPS_Z(Mem{Base: src, Disp: 64}, K2, Z1)
	g.vcvtne2ps2bf16(Z0, Z1, Z2)
	g.INCQ(n)
	g.SHRQ(Imm(1), n)
	g.columnMask(n, RAX, K1)
	g.VMOVUPS(Z2, K1, Mem{Base: dst})
	g.Label("done")
	g.VZEROUPPER()
	g.RET()
}

// transpose16 transposes the 16×16 words of Z0…Z15: by fours within each 128 bits,
// and then those, as a square of 4×4. It uses the other registers.
func (g *gen) transpose16() {
	a, t := zmm[:16], zmm[16:]
	for i := range 8 {
		g.VUNPCKLPS(a[2*i+1], a[2*i], t[2*i])
		g.VUNPCKHPS(a[2*i+1], a[2*i], t[2*i+1])
	}
	for h := 0; h < 16; h += 4 {
		g.VUNPCKLPD(t[h+2], t[h], a[h])
		g.VUNPCKHPD(t[h+2], t[h], a[h+1])
		g.VUNPCKLPD(t[h+3], t[h+1], a[h+2])
		g.VUNPCKHPD(t[h+3], t[h+1], a[h+3])
	}
	const even, odd = 0x88, 0xdd
	for c := range 4 {
		t := t[4*c:]
		g.VSHUFF32X4(Imm(even), a[4+c], a[c], t[0])
		g.VSHUFF32X4(Imm(odd), a[4+c], a[c], t[1])
		g.VSHUFF32X4(Imm(even), a[12+c], a[8+c], t[2])
		g.VSHUFF32X4(Imm(odd), a[12+c], a[8+c], t[3])
	}
	for c := range 4 {
		t := t[4*c:]
		g.VSHUFF32X4(Imm(even), t[2], t[0], a[c])
		g.VSHUFF32X4(Imm(even), t[3], t[1], a[4+c])
		g.VSHUFF32X4(Imm(odd), t[2], t[0], a[8+c])
		g.VSHUFF32X4(Imm(odd), t[3], t[1], a[12+c])
	}
}

// transposePairsBF16 rounds 16 rows of k floats and writes groups of 16 pairs of
// k, as columns of a panel of 32. A last half word is zero.
func (g *gen) transposePairsBF16() {
	g.function("transposePairs16BF16", "func(dst *float32, rows *[16]*float32, k int)")
	dst, rows, k, off, row := RDI, RSI, RDX, RAX, RBX
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("rows"), rows)
	g.Load(g.Param("k"), k)
	g.XORQ(off, off)
	load := func(masked bool) {
		for i := range 16 {
			g.MOVQ(Mem{Base: rows, Disp: 8 * i}, row)
			at := func(disp int) Mem { return Mem{Base: row, Index: off, Scale: 1, Disp: disp} }
			if masked {
				g.VMOVUPS_Z(at(0), K1, Z16)
				g.VMOVUPS_Z(at(64), K2, Z17)
			} else {
				g.VMOVUPS(at(0), Z16)
				g.VMOVUPS(at(64), Z17)
				// Sixteen rows may crowd a set of the first-level cache: the second has room.
				g.PREFETCHT1(at(512))
				g.PREFETCHT1(at(576))
			}
			g.vcvtne2ps2bf16(Z16, Z17, zmm[i])
		}
	}
	const stride = 4 * 32
	g.SUBQ(Imm(32), k)
	g.JLT(LabelRef("rest"))
	g.Label("pairs")
	load(false)
	g.transpose16()
	for i := range 16 {
		g.VMOVUPS(zmm[i], Mem{Base: dst, Disp: stride * i})
	}
	g.ADDQ(U32(16*stride), dst)
	g.ADDQ(U32(128), off)
	g.SUBQ(Imm(32), k)
	g.JGE(LabelRef("pairs"))
	g.Label("rest")
	g.ADDQ(Imm(32), k)
	g.JLE(LabelRef("done"))
	g.columnMasks(k, R8, R9)
	load(true)
	g.transpose16()
	g.INCQ(k)
	g.SHRQ(Imm(1), k)
	for i := range 16 {
		g.VMOVUPS(zmm[i], Mem{Base: dst, Disp: stride * i})
		g.DECQ(k)
		g.JEQ(LabelRef("done"))
	}
	g.Label("done")
	g.VZEROUPPER()
	g.RET()
}

// pairRowsBF16 rounds k rows of m ≤ 16 columns and writes the columns as rows of
// pairs of k, filled up with zeros to whole registers.
func (g *gen) pairRowsBF16() {
	g.function("pairRows16BF16", "func(dst *float32, stride int, src *float32, srcStride, k, m int)")
	dst, stride, src, next, k, m := RDI, RAX, RSI, RBX, RDX, RCX
	d, n, ahead := R8, R9, R10
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("stride"), stride)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("srcStride"), next)
	g.Load(g.Param("k"), k)
	g.Load(g.Param("m"), m)
	g.columnMask(m, R11, K1)
	g.MOVQ(next, ahead)
	g.SHLQ(Imm(5), ahead)
	// load reads a row, and asks for the one of the next round: they lie too far
	// apart for the processor to guess.
	load := func(x VecPhysical) {
		g.VMOVUPS_Z(Mem{Base: src}, K1, x)
		g.PREFETCHT1(Mem{Base: src, Index: ahead, Scale: 1})
		g.ADDQ(next, src)
	}
	g.Label("round")
	g.VMOVDQU32(g.order, Z31)
	g.CMPQ(k, Imm(32))
	g.JLT(LabelRef("rest"))
	for i := range 16 {
		load(Z16)
		load(Z17)
		g.vcvtne2ps2bf16(Z16, Z17, Z16)
		g.VPERMW(Z16, Z31, zmm[i])
	}
	g.Label("write")
	g.transpose16()
	g.MOVQ(dst, d)
	g.MOVQ(m, n)
	for i := range 16 {
		g.VMOVUPS(zmm[i], Mem{Base: d})
		g.ADDQ(stride, d)
		g.DECQ(n)
		g.JEQ(LabelRef("written"))
	}
	g.Label("written")
	g.ADDQ(Imm(64), dst)
	g.SUBQ(Imm(32), k)
	g.JG(LabelRef("round"))
	g.VZEROUPPER()
	g.RET()
	g.Label("rest")
	for i := range 16 {
		g.VPXORD(zmm[i], zmm[i], zmm[i])
	}
	for i := range 16 {
		load(Z16)
		g.VPXORD(Z17, Z17, Z17)
		g.CMPQ(k, Imm(uint64(2*i+1)))
		g.JEQ(LabelRef(fmt.Sprintf("alone%d", i)))
		load(Z17)
		g.Label(fmt.Sprintf("alone%d", i))
		g.vcvtne2ps2bf16(Z16, Z17, Z16)
		g.VPERMW(Z16, Z31, zmm[i])
		g.CMPQ(k, Imm(uint64(2*i+2)))
		g.JLE(LabelRef("write"))
	}
	g.JMP(LabelRef("write"))
}
