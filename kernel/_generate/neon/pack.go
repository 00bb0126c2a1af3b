package main

import "fmt"

// transpose writes the elements of 8 rows: 8 columns of 4 at a time, and of what is left
// one by one.
func transpose() *function {
	f := define("transpose8NEON", "dst *float32, stride int, rows *[16]*float32, k int, mask *int32", "",
		"writes k groups of 8 floats: the l-th of each of the first 8 rows.")
	dst, stride, rows, k := f.word("dst"), f.word("stride"), f.word("rows"), f.word("k")
	var row [8]gp
	for r := range row {
		row[r] = f.register()
		f.line("MOVD %d(%s), %s", 8*r, rows, row[r])
	}
	f.line("SUBS $4, %s", k)
	f.line("BLT rest")
	f.place("four")
	var column [4][2]vec
	for h := range 2 {
		var x [4]vec
		for r := range x {
			x[r] = f.value()
			f.into(fmt.Sprintf("FMOVQ.P 16(%s), F?", row[4*h+r]), x[r])
		}
		var pair [4]vec // of rows 0 and 2 and of 1 and 3, so that zipping them again puts all in order
		for i := range 2 {
			pair[2*i] = f.op("zip1", x[i], x[i+2])
			pair[2*i+1] = f.op("zip2", x[i], x[i+2])
		}
		for i := range 2 {
			column[2*i][h] = f.op("zip1", pair[i], pair[2+i])
			column[2*i+1][h] = f.op("zip2", pair[i], pair[2+i])
		}
	}
	for _, c := range column {
		f.from(fmt.Sprintf("FSTPQ (F?, F?), (%s)", dst), c[:]...)
		f.line("ADD %s, %s", stride, dst)
	}
	f.line("SUBS $4, %s", k)
	f.line("BGE four")
	f.place("rest")
	f.line("ADDS $4, %s", k)
	f.line("BEQ done")
	f.place("one")
	for r := range row {
		f.line("MOVWU.P 4(%s), R17", row[r])
		f.line("MOVW R17, %d(%s)", 4*r, dst)
	}
	f.line("ADD %s, %s", stride, dst)
	f.line("SUBS $1, %s", k)
	f.line("BNE one")
	f.place("done")
	return f
}

// load16 loads 16 floats and goes past them, and store16 stores as many.
func (f *function) load16(p gp) (v [4]vec) {
	for i := 0; i < len(v); i += 2 {
		v[i], v[i+1] = f.value(), f.value()
		f.into(fmt.Sprintf("FLDPQ.P 32(%s), (F?, F?)", p), v[i], v[i+1])
	}
	return v
}

func (f *function) store16(p gp, v [4]vec) {
	f.from(fmt.Sprintf("FSTPQ (F?, F?), (%s)", p), v[:2]...)
	f.from(fmt.Sprintf("FSTPQ (F?, F?), 32(%s)", p), v[2:]...)
}

func copyPanels() *function {
	f := define("copyPanels16NEON", "dst, src *float32, stride, panel, panels, k int, mask *int32", "",
		"copies k rows into panels of 16 columns, panel bytes apart;\n// with a mask one more panel follows, filled up with zeros.")
	dst, src, stride, panel, k := f.word("dst"), f.word("src"), f.word("stride"), f.word("panel"), f.word("k")
	mask, left, to, from := f.word("mask"), f.register(), f.register(), f.register()
	rest := f.register() // columns of the last panel
	f.line("MOVD ZR, %s", rest)
	f.line("CBZ %s, row", mask)
	f.place("count")
	f.line("MOVW (%s)(%s<<2), R17", mask, rest)
	f.line("CBZ R17, row")
	f.line("ADD $1, %s", rest)
	f.line("B count")
	f.place("row")
	f.line("MOVD %s, %s", dst, to)
	f.line("MOVD %s, %s", src, from)
	f.line("MOVD panels+%d(FP), %s", f.param("panels").at, left)
	f.line("CBZ %s, last", left)
	f.place("whole")
	f.store16(to, f.load16(from))
	f.line("ADD %s, %s", panel, to)
	f.line("SUBS $1, %s", left)
	f.line("BNE whole")
	f.place("last")
	f.line("CBZ %s, next", rest)
	zero := f.zeros()
	f.store16(to, [4]vec{zero, zero, zero, zero})
	f.line("MOVD %s, %s", rest, left)
	f.place("one")
	f.line("MOVWU.P 4(%s), R17", from)
	f.line("MOVW.P R17, 4(%s)", to)
	f.line("SUBS $1, %s", left)
	f.line("BNE one")
	f.place("next")
	f.line("ADD $64, %s", dst)
	f.line("ADD %s, %s", stride, src)
	f.line("SUBS $1, %s", k)
	f.line("BNE row")
	return f
}

func joinRows() *function {
	f := define("joinRows16NEON", "dst, src *float32, pairs int", "",
		"joins each two rows of 16 floats that hold bfloat16 values to one of\n// pairs, the first in the lower halves of the words.")
	dst, src, pairs := f.word("dst"), f.word("src"), f.word("pairs")
	f.place("pair")
	low, high := f.load16(src), f.load16(src)
	for i := range low {
		f.do("sri", high[i], low[i], 16)
	}
	f.store16(dst, high)
	f.line("ADD $64, %s", dst)
	f.line("SUBS $1, %s", pairs)
	f.line("BNE pair")
	return f
}

// round adds to the bits of x half of the last place that is kept, or a little less where
// that place is even; a NaN gets its quiet bit instead.
func round() *function {
	f := define("roundBF16NEON", "x *float32, n int", "", "rounds n floats, a multiple of 8, to bfloat16 in place.")
	x, n := f.word("x"), f.word("n")
	one, half, upper, quiet := f.everywhere(1), f.everywhere(0x7fff), f.everywhere(0xffff0000), f.everywhere(0x400000)
	f.line("CBZ %s, done", n)
	f.place("four")
	v := f.value()
	f.into(fmt.Sprintf("FMOVQ (%s), F?", x), v)
	up := f.op("add", f.op("add", v, half), f.op("and", f.op("ushr", v, 16), one))
	nan := f.op("orr", v, quiet)
	same := f.op("fcmeq", v, v)
	f.do("bsl", same, up, nan)
	f.from(fmt.Sprintf("FMOVQ.P F?, 16(%s)", x), f.op("and", same, upper))
	f.line("SUBS $4, %s", n)
	f.line("BGT four")
	f.place("done")
	return f
}

func epilogue() *function {
	f := define("epilogueNEON", "c, bias, add, scale, mul *float32, n int, mask *int32", "",
		"applies to n elements of c, leaving out nil operands:\n// c = (c + bias + add)·scale·mul.")
	c := f.word("c")
	operands := []struct {
		op string
		p  gp
	}{{"fadd", f.word("bias")}, {"fadd", f.word("add")}, {"fmul", f.word("scale")}, {"fmul", f.word("mul")}}
	n := f.word("n")
	v, x := vec(0), vec(1)
	part := func(move string, bytes int) {
		f.into(fmt.Sprintf("%s (%s), F?", move, c), v)
		for _, o := range operands {
			without := f.label("without")
			f.line("CBZ %s, %s", o.p, without)
			f.into(fmt.Sprintf("%s.P %d(%s), F?", move, bytes, o.p), x)
			f.do(o.op, v, v, x)
			f.place(without)
		}
		f.from(fmt.Sprintf("%s.P F?, %d(%s)", move, bytes, c), v)
	}
	f.line("SUBS $4, %s", n)
	f.line("BLT two")
	f.place("four")
	part("FMOVQ", 16)
	f.line("SUBS $4, %s", n)
	f.line("BGE four")
	f.place("two") // n is 4 less than what is left, so its last bits are the same
	f.line("TBZ $1, %s, one", n)
	part("FMOVD", 8)
	f.place("one")
	f.line("TBZ $0, %s, done", n)
	part("FMOVS", 4)
	f.place("done")
	return f
}

// pairPanels rounds by BFCVTN, four floats to a half of a register.
func pairPanels() *function {
	f := define("pairPanels16BF16", "dst, even, odd *float32, panel, panels int", "",
		"rounds two rows to bfloat16 and joins them to rows of words, the first in\n// the lower halves, of panels of 16 columns, panel bytes apart.")
	dst, even, odd, panel, left := f.word("dst"), f.word("even"), f.word("odd"), f.word("panel"), f.word("panels")
	f.place("panel")
	var half [2][2]vec // of row and columns
	for r, row := range []gp{even, odd} {
		x := f.load16(row)
		for h := range 2 {
			half[r][h] = f.op("bfcvtn", x[2*h])
			f.do("bfcvtn2", half[r][h], x[2*h+1])
		}
	}
	var words [4]vec
	for h := range 2 {
		words[2*h], words[2*h+1] = f.op("zip1/16", half[0][h], half[1][h]), f.op("zip2/16", half[0][h], half[1][h])
	}
	f.store16(dst, words)
	f.line("ADD %s, %s", panel, dst)
	f.line("SUBS $1, %s", left)
	f.line("BNE panel")
	return f
}

func pairRow() *function {
	f := define("pairRowBF16", "dst, src *float32, n int", "", "rounds n floats, a multiple of 8 and at least 8, to bfloat16, two to a word.")
	dst, src, n := f.word("dst"), f.word("src"), f.word("n")
	f.place("eight")
	x := []vec{f.value(), f.value()}
	f.into(fmt.Sprintf("FLDPQ.P 32(%s), (F?, F?)", src), x...)
	v := f.op("bfcvtn", x[0])
	f.do("bfcvtn2", v, x[1])
	f.from(fmt.Sprintf("FMOVQ.P F?, 16(%s)", dst), v)
	f.line("SUBS $8, %s", n)
	f.line("BNE eight")
	return f
}
