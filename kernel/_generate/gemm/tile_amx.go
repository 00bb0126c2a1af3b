package main

import (
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// tileAMX emits the microkernel of Rows×32 elements, Rows ≤ 32, on AMX tiles: four
// of 16×16 sums, two of A (16 rows of 32 bfloat16), two of B (16 pairs of k by
// 16 columns). A step is 32 of k. A must be readable for 32 rows. The sums pass
// through memory, because tile registers know no other arithmetic.
func (g *gen) tileAMX() {
	g.function("tile32x32AMX", "func(args *byte)")
	args, a, b, c := RDI, RAX, RBX, RCX
	arow, brow, crow, k, p, q, temp, rows := R8, R9, RDX, R13, RSI, R15, R10, R11
	field := func(off int) Mem { return Mem{Base: args, Disp: off} }
	g.MOVQ(NewParamAddr("args", 0), args)
	g.columnMasks(field(argN), k, p)
	g.VBROADCASTSS(field(argAlpha), Z24)
	g.MOVQ(field(argA), a)
	g.MOVQ(field(argC), c)
	g.MOVQ(field(argARow), arow)
	g.MOVQ(field(argBK), brow)
	g.MOVQ(field(argCRow), crow)
	g.MOVQ(field(argConfig), p)
	g.tileconfig(p)

	g.Label("tile")
	for t := range 4 {
		g.tilezero(t)
	}
	g.MOVQ(a, p)
	g.MOVQ(arow, q)
	g.SHLQ(Imm(4), q)
	g.ADDQ(a, q)
	g.MOVQ(field(argB), b)
	g.MOVQ(field(argK), k)
	g.MOVQ(field(argTemp), temp)
	g.CMPQ(field(argRows), Imm(16))
	g.JLE(LabelRef("half"))
	g.Label("step")
	g.tileload(4, p, arow, 0)
	g.tileload(6, b, brow, 0)
	g.tileload(7, b, brow, 64)
	g.tileload(5, q, arow, 0)
	g.tdpbf16ps(0, 4, 6)
	g.tdpbf16ps(1, 4, 7)
	g.tdpbf16ps(2, 5, 6)
	g.tdpbf16ps(3, 5, 7)
	advance := func() {
		g.ADDQ(Imm(64), p)
		g.ADDQ(Imm(64), q)
		g.ADDQ(U32(16*128), b)
		g.DECQ(k)
	}
	advance()
	g.JNE(LabelRef("step"))
	g.JMP(LabelRef("sums"))
	g.Label("half")
	g.tileload(4, p, arow, 0)
	g.tileload(6, b, brow, 0)
	g.tileload(7, b, brow, 64)
	g.tdpbf16ps(0, 4, 6)
	g.tdpbf16ps(1, 4, 7)
	advance()
	g.JNE(LabelRef("half"))

	g.Label("sums")
	stride := q
	g.MOVQ(U32(128), stride)
	g.tilestore(temp, stride, 0, 0)
	g.tilestore(temp, stride, 64, 1)
	g.tilestore(temp, stride, 16*128, 2)
	g.tilestore(temp, stride, 16*128+64, 3)
	g.MOVQ(field(argRows), rows)
	g.CMPL(field(argAccum), Imm(0))
	g.JNE(LabelRef("accumulate"))
	row := func(accumulate bool) {
		g.VMOVUPS(Mem{Base: temp}, Z0)
		g.VMOVUPS(Mem{Base: temp, Disp: 64}, Z1)
		if accumulate {
			g.addRow(c, Z24, Z0, Z1)
		} else {
			g.VMULPS(Z24, Z0, Z0)
			g.VMULPS(Z24, Z1, Z1)
		}
		g.storeRow(c, Z0, Z1)
		g.ADDQ(stride, temp)
		g.ADDQ(crow, c)
		g.DECQ(rows)
	}
	g.Label("store")
	row(false)
	g.JNE(LabelRef("store"))
	g.JMP(LabelRef("next"))
	g.Label("accumulate")
	row(true)
	g.JNE(LabelRef("accumulate"))
	g.Label("next")
	g.ADDQ(field(argATile), a)
	g.DECQ(field(argTiles))
	g.JNE(LabelRef("tile"))
	g.tilerelease()
	g.VZEROUPPER()
	g.RET()
}
