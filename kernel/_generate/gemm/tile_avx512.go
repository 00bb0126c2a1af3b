package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

var zmm = []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
	Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}

// tileAVX512 emits the microkernel of rows×32 elements, rows ≤ 12: 24 of the 32
// registers hold sums. For BF16 an element of A and B is a pair of bfloat16, of k and
// k+1, and a step multiplies both; for HalvesAVX512 an element of B is such a pair, and
// a step takes two float32s of A; for BytesAVX512 B is int8 with factors (see bytesLoop).
func (g *gen) tileAVX512(rows int, name string) {
	multiply := func(b, a, sum VecPhysical) { g.VFMADD231PS(b, a, sum) }
	if name == "BF16" {
		multiply = g.vdpbf16ps
	}
	elements := 1 // of A in a step
	if name == "HalvesAVX512" {
		elements = 2
	}
	g.function(fmt.Sprintf("tile%dx32%s", rows, name), "func(args *byte)")
	args, a, b, c := RDI, RAX, RBX, RCX
	r1, r3, r5, bk := R8, R9, R10, R12
	k, p, q, crow, ahead, next := R13, RSI, R15, RDX, R14, R11 // p: rows 0…5, q: rows 6…11
	field := func(off int) Mem { return Mem{Base: args, Disp: off} }
	g.MOVQ(NewParamAddr("args", 0), args)
	g.columnMasks(field(argN), k, p)
	g.MOVQ(field(argA), a)
	g.MOVQ(field(argC), c)
	g.MOVQ(field(argARow), r1)
	g.LEAQ(Mem{Base: r1, Index: r1, Scale: 2}, r3)
	g.LEAQ(Mem{Base: r1, Index: r1, Scale: 4}, r5)
	g.MOVQ(field(argBK), bk)
	g.MOVQ(field(argCRow), crow)
	g.MOVQ(field(argNext), next)
	row := func(i, step int) Mem {
		if i >= 6 {
			return rowOf(q, r1, r3, r5, i-6, 4*step)
		}
		return rowOf(p, r1, r3, r5, i, 4*step)
	}
	b0, b1, upper := Z24, Z25, Z28
	if elements == 2 {
		g.VPBROADCASTD(g.upper, upper)
	}

	g.Label("tile")
	g.MOVQ(c, ahead)
	for i := range 2 * rows {
		g.VPXORD(zmm[i], zmm[i], zmm[i])
	}
	g.MOVQ(a, p)
	if rows > 6 {
		g.LEAQ(Mem{Base: a, Index: r3, Scale: 2}, q)
	}
	g.MOVQ(field(argB), b)
	each := func(b0, b1 VecPhysical, element int, free []VecPhysical) {
		for i := range rows {
			x := free[i%len(free)]
			g.VBROADCASTSS(row(i, element), x)
			multiply(b0, x, zmm[2*i])
			multiply(b1, x, zmm[2*i+1])
		}
	}
	step := func(u int) {
		g.VMOVUPS(Mem{Base: b}, b0)
		g.VMOVUPS(Mem{Base: b, Disp: 64}, b1)
		if elements == 1 {
			each(b0, b1, u, zmm[26:])
		} else { // the lower halves, widened, and then the upper ones
			g.VPSLLD(Imm(16), b0, Z26)
			g.VPSLLD(Imm(16), b1, Z27)
			each(Z26, Z27, 2*u, zmm[29:])
			g.VPANDD(upper, b0, b0)
			g.VPANDD(upper, b1, b1)
			each(b0, b1, 2*u+1, zmm[29:])
		}
		g.ADDQ(bk, b)
	}
	advance := func(steps int) {
		g.ADDQ(Imm(uint64(4*steps*elements)), p)
		if rows > 6 {
			g.ADDQ(Imm(uint64(4*steps*elements)), q)
		}
	}
	g.MOVQ(field(argK), k)
	if name == "BytesAVX512" {
		scales := R12
		g.bytesLoop(32, b, k, ahead, scales, advance, func(u int) {
			for h, x := range []VecPhysical{b0, b1} {
				g.VPMOVSXBD(Mem{Base: b, Disp: 32*u + 16*h}, x)
				g.VCVTDQ2PS(x, x)
				g.VMULPS(Mem{Base: scales, Disp: 64 * h}, x, x)
			}
			each(b0, b1, u, zmm[26:])
		})
		g.JMP(LabelRef("sums"))
	}
	g.SUBQ(Imm(4), k)
	g.JLT(LabelRef("rest"))
	g.Label("four")
	// C's lines are wanted at the end of the loop over k, the next panel of B after
	// it: a row every round, as memory is not asked for much at once without what B
	// and A ask for waiting.
	g.CMPQ(k, field(argFetch))
	g.JGE(LabelRef("fetched"))
	g.PREFETCHT0(Mem{Base: ahead})
	g.PREFETCHT0(Mem{Base: ahead, Disp: 64})
	g.ADDQ(crow, ahead)
	g.Label("fetched")
	g.DECQ(field(argNextCount))
	g.JLT(LabelRef("multiply"))
	g.PREFETCHT1(Mem{Base: next})
	g.PREFETCHT1(Mem{Base: next, Disp: 64})
	g.ADDQ(field(argNextRow), next)
	g.DECQ(field(argNextAt))
	g.JNE(LabelRef("multiply"))
	g.ADDQ(field(argNextBack), next)
	g.MOVQ(next, field(argNext))
	g.MOVQ(field(argNextRows), next)
	g.MOVQ(next, field(argNextAt))
	g.MOVQ(field(argNext), next)
	g.Label("multiply")
	for u := range 4 {
		step(u)
	}
	advance(4)
	g.SUBQ(Imm(4), k)
	g.JGE(LabelRef("four"))
	g.Label("rest")
	g.ADDQ(Imm(4), k)
	g.JLE(LabelRef("sums"))
	g.Label("one")
	step(0)
	advance(1)
	g.DECQ(k)
	g.JNE(LabelRef("one"))

	g.Label("sums")
	alpha := Z24
	g.VBROADCASTSS(field(argAlpha), alpha)
	g.CMPL(field(argAccum), Imm(0))
	g.JNE(LabelRef("accumulate"))
	g.CMPQ(field(argStream), Imm(0))
	g.JNE(LabelRef("stream"))
	for i := range rows {
		g.VMULPS(alpha, zmm[2*i], zmm[2*i])
		g.VMULPS(alpha, zmm[2*i+1], zmm[2*i+1])
		g.storeRow(c, zmm[2*i], zmm[2*i+1])
		g.ADDQ(crow, c)
	}
	g.JMP(LabelRef("next"))
	g.Label("stream")
	for i := range rows {
		g.VMULPS(alpha, zmm[2*i], zmm[2*i])
		g.VMULPS(alpha, zmm[2*i+1], zmm[2*i+1])
		g.VMOVNTPS(zmm[2*i], Mem{Base: c})
		g.VMOVNTPS(zmm[2*i+1], Mem{Base: c, Disp: 64})
		g.ADDQ(crow, c)
	}
	g.JMP(LabelRef("next"))
	g.Label("accumulate")
	for i := range rows {
		g.addRow(c, alpha, zmm[2*i], zmm[2*i+1])
		g.storeRow(c, zmm[2*i], zmm[2*i+1])
		g.ADDQ(crow, c)
	}
	g.Label("next")
	g.ADDQ(field(argATile), a)
	g.DECQ(field(argTiles))
	g.JNE(LabelRef("tile"))
	g.MOVQ(next, field(argNext))
	g.VZEROUPPER()
	g.RET()
}

// bytesLoop emits the loop over k for panels of int8: groups of 32 rows of nr bytes, each
// behind its nr factors. step gets the row's number behind b. n and scales are free
// registers, k counts rows.
func (g *gen) bytesLoop(nr int, b, k, n, scales GPPhysical, advance func(steps int), step func(u int)) {
	g.Label("group")
	g.MOVQ(b, scales)
	g.ADDQ(U32(4*nr), b)
	g.MOVQ(U32(32), n)
	g.CMPQ(k, n)
	g.JGE(LabelRef("whole"))
	g.MOVQ(k, n)
	g.Label("whole")
	g.SUBQ(n, k)
	g.SUBQ(Imm(4), n)
	g.JLT(LabelRef("lastrows"))
	g.Label("fourrows")
	for u := range 4 {
		step(u)
	}
	advance(4)
	g.ADDQ(U32(4*nr), b)
	g.SUBQ(Imm(4), n)
	g.JGE(LabelRef("fourrows"))
	g.Label("lastrows")
	g.ADDQ(Imm(4), n)
	g.JEQ(LabelRef("groupdone"))
	g.Label("onerow")
	step(0)
	advance(1)
	g.ADDQ(U32(nr), b)
	g.DECQ(n)
	g.JNE(LabelRef("onerow"))
	g.Label("groupdone")
	g.TESTQ(k, k)
	g.JNE(LabelRef("group"))
}

// columnMasks sets K1 and K2 for the first n of 32 columns.
func (g *gen) columnMasks(n Op, t, ones GPPhysical) {
	g.MOVQ(n, t)
	g.MOVL(U32(0xffffffff), ones.As32())
	g.BZHIL(t.As32(), ones.As32(), t.As32())
	g.KMOVW(t.As32(), K1)
	g.SHRL(Imm(16), t.As32())
	g.KMOVW(t.As32(), K2)
}

// addRow computes v = alpha·v + C for a row of 32.
func (g *gen) addRow(c Register, alpha, v0, v1 VecPhysical) {
	g.VMOVUPS_Z(Mem{Base: c}, K1, Z26)
	g.VMOVUPS_Z(Mem{Base: c, Disp: 64}, K2, Z27)
	g.VFMADD213PS(Z26, alpha, v0)
	g.VFMADD213PS(Z27, alpha, v1)
}

func (g *gen) storeRow(c Register, v0, v1 VecPhysical) {
	g.VMOVUPS(v0, K1, Mem{Base: c})
	g.VMOVUPS(v1, K2, Mem{Base: c, Disp: 64})
}
