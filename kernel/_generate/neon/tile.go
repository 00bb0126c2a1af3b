package main

import "fmt"

// The microkernels compute tiles of up to 4×16: sixteen registers of sums, as many as four
// units with a latency of four keep busy. A row of A is read where it lies, eight
// elements at a time, of which each is a lane that multiplies a row of B's panel. kernel.tileArgs
// is what they are given.
const (
	tileRows    = 4
	tileVectors = 4 // of a row of C
)

// Offsets in kernel.tileArgs.
const (
	argA     = 0
	argB     = 8
	argC     = 16
	argK     = 24
	argARow  = 32
	argBK    = 40
	argCRow  = 48
	argATile = 56
	argTiles = 64
	argN     = 72
	argAlpha = 80
	argAccum = 84
)

// General registers of the microkernels: of the tile, and within it.
const (
	args, aTile, cTile, bStride, tilesLeft, columns, accumulate = gp("R0"), gp("R1"), gp("R2"), gp("R3"), gp("R4"), gp("R5"), gp("R6")
	b, k, c                                                     = gp("R7"), gp("R8"), gp("R9")
)

func rowOf(r int) gp { return gp(fmt.Sprintf("R%d", 10+r)) } // of A

// sum returns a register of sums.
func sum(r, i int) vec { return vec(16 + tileVectors*r + i) }

// tiles begins a microkernel: body gets the addresses of a tile's operands and the steps
// of k in registers, and adds to the sums.
func tiles(rows int, kind, doc string, body func(f *function)) *function {
	f := define(fmt.Sprintf("tile%dx16%s", rows, kind), "args *tileArgs", "", doc)
	f.line("MOVD args+0(FP), %s", args)
	for _, x := range []struct {
		at int
		to gp
	}{{argA, aTile}, {argC, cTile}, {argBK, bStride}, {argTiles, tilesLeft}, {argN, columns}} {
		f.line("MOVD %d(%s), %s", x.at, args, x.to)
	}
	f.line("MOVWU %d(%s), %s", argAccum, args, accumulate)
	f.place("tile")
	f.line("MOVD %d(%s), %s", argARow, args, c)
	f.line("MOVD %s, %s", aTile, rowOf(0))
	for r := 1; r < rows; r++ {
		f.line("ADD %s, %s, %s", c, rowOf(r-1), rowOf(r))
	}
	f.line("MOVD %d(%s), %s", argB, args, b)
	f.line("MOVD %d(%s), %s", argK, args, k)
	for r := range rows {
		for i := range tileVectors {
			f.do("eor", sum(r, i), sum(r, i), sum(r, i))
		}
	}
	body(f)
	f.store(rows)
	f.line("MOVD %d(%s), %s", argATile, args, c)
	f.line("ADD %s, %s", c, aTile)
	f.line("SUBS $1, %s", tilesLeft)
	f.line("BNE tile")
	return f
}

// multiply adds a row of four vectors of B, times lane i of each row's register, to the
// sums: op is fmla, or bfdot for lanes of two bfloat16.
func (f *function) multiply(op string, rows int, b [tileVectors]vec, a func(r int) vec, i int) {
	for j := range tileVectors {
		for r := range rows {
			f.do(op+"/lane", sum(r, j), b[j], lane{a(r), i})
		}
	}
}

func tileFloat(rows int) *function { return tile(rows, "NEON", "float32", "fmla") }

// tileBF16 is the same with words of two bfloat16 in the place of float32s.
func tileBF16(rows int) *function { return tile(rows, "BF16", "pairs of bfloat16", "bfdot") }

func tile(rows int, kind, elements, op string) *function {
	return tiles(rows, kind, "is the microkernel of "+elements+".", func(f *function) {
		a := func(r int) vec { return vec(2 * r) }
		load := func(k int) (v [tileVectors]vec) { // B's rows take turns in two sets of registers
			for i := range v {
				v[i] = vec(8 + 4*(k%2) + i)
			}
			f.into(fmt.Sprintf("VLD1.P (%s)(%s), [V?.S4, V?.S4, V?.S4, V?.S4]", b, bStride), v[:]...)
			return v
		}
		f.line("SUBS $8, %s", k)
		f.line("BLT rest")
		f.place("eight")
		for r := range rows {
			f.into(fmt.Sprintf("FLDPQ.P 32(%s), (F?, F?)", rowOf(r)), a(r), a(r)+1)
		}
		for k := range 8 {
			f.multiply(op, rows, load(k), func(r int) vec { return a(r) + vec(k/4) }, k%4)
		}
		f.line("SUBS $8, %s", k)
		f.line("BGE eight")
		f.place("rest")
		f.line("ADDS $8, %s", k)
		f.line("BEQ store")
		f.place("one")
		for r := range rows {
			f.into(fmt.Sprintf("FMOVS.P 4(%s), F?", rowOf(r)), a(r))
		}
		f.multiply(op, rows, load(0), a, 0)
		f.line("SUBS $1, %s", k)
		f.line("BNE one")
		f.place("store")
	})
}

// tileHalves takes a B of pairs of bfloat16: words whose lower half is of an even k and
// whose upper half is of the next. k counts the pairs; A has an element more if it must.
func tileHalves(rows int) *function {
	return tiles(rows, "HalvesNEON", "is the microkernel of an A of float32 and a B of pairs of bfloat16.", func(f *function) {
		a := func(r int) vec { return vec(r) }
		pair, half := [tileVectors]vec{4, 5, 6, 7}, [tileVectors]vec{8, 9, 10, 11}
		const upper = vec(12)
		f.line("MOVW $0xffff0000, %s", c)
		f.line("VDUP %s, V%d.S4", c, upper)
		step := func(i int) { // with lanes i and i+1 of A
			f.into(fmt.Sprintf("VLD1.P 64(%s), [V?.S4, V?.S4, V?.S4, V?.S4]", b), pair[:]...)
			for j := range pair {
				f.do("shl", half[j], pair[j], 16)
			}
			f.multiply("fmla", rows, half, a, i)
			for j := range pair {
				f.do("and", pair[j], pair[j], upper)
			}
			f.multiply("fmla", rows, pair, a, i+1)
		}
		f.line("SUBS $2, %s", k)
		f.line("BLT rest")
		f.place("two")
		for r := range rows {
			f.into(fmt.Sprintf("FMOVQ.P 16(%s), F?", rowOf(r)), a(r))
		}
		step(0)
		step(2)
		f.line("SUBS $2, %s", k)
		f.line("BGE two")
		f.place("rest")
		f.line("ADDS $2, %s", k)
		f.line("BEQ store")
		for r := range rows {
			f.into(fmt.Sprintf("FMOVD (%s), F?", rowOf(r)), a(r))
		}
		step(0)
		f.place("store")
	})
}

// tileBytes takes a B of int8: for each 32 steps of k a row of factors and then the rows
// of bytes.
func tileBytes(rows int) *function {
	return tiles(rows, "BytesNEON", "is the microkernel of an A of float32 and a B of int8 with factors.", func(f *function) {
		const group = 32
		a := func(r int) vec { return vec(r) }
		factor, row := [tileVectors]vec{4, 5, 6, 7}, [tileVectors]vec{8, 9, 10, 11}
		const bytes, words = vec(12), vec(13)
		left := c // of the group
		step := func(i int) {
			f.into(fmt.Sprintf("FMOVQ.P 16(%s), F?", b), bytes)
			for h, widen := range []string{"sxtl", "sxtl2"} {
				f.do(widen+"/8", words, bytes)
				f.do("sxtl", row[2*h], words)
				f.do("sxtl2", row[2*h+1], words)
			}
			for j := range row {
				f.do("scvtf", row[j], row[j])
				f.do("fmul", row[j], row[j], factor[j])
			}
			f.multiply("fmla", rows, row, a, i)
		}
		f.place("group")
		f.into(fmt.Sprintf("VLD1.P 64(%s), [V?.S4, V?.S4, V?.S4, V?.S4]", b), factor[:]...)
		f.line("MOVD $%d, %s", group, left)
		f.line("CMP %s, %s", left, k)
		f.line("CSEL LT, %s, %s, %s", k, left, left)
		f.line("SUB %s, %s", left, k)
		f.line("SUBS $4, %s", left)
		f.line("BLT rest")
		f.place("four")
		for r := range rows {
			f.into(fmt.Sprintf("FMOVQ.P 16(%s), F?", rowOf(r)), a(r))
		}
		for i := range 4 {
			step(i)
		}
		f.line("SUBS $4, %s", left)
		f.line("BGE four")
		f.place("rest")
		f.line("ADDS $4, %s", left)
		f.line("BEQ next")
		f.place("one")
		for r := range rows {
			f.into(fmt.Sprintf("FMOVS.P 4(%s), F?", rowOf(r)), a(r))
		}
		step(0)
		f.line("SUBS $1, %s", left)
		f.line("BNE one")
		f.place("next")
		f.line("CBNZ %s, group", k)
	})
}

// store writes alpha times the sums to C, or adds it to C.
func (f *function) store(rows int) {
	const alpha = vec(15)
	next := gp("R14") // row of C
	f.into(fmt.Sprintf("FMOVS %d(%s), F?", argAlpha, args), alpha)
	f.line("MOVD %d(%s), %s", argCRow, args, k)
	// part writes the first vectors of a row, or a part of one: op moves it.
	part := func(op string, bytes int, v ...vec) {
		plain := f.label("plain")
		f.line("CBZ %s, %s", accumulate, plain)
		for i, v := range v {
			f.into(fmt.Sprintf("%s %d(%s), F?", op, i*bytes, c), vec(8+i))
			f.do("fadd", v, v, vec(8+i))
		}
		f.place(plain)
		for i, v := range v {
			f.from(fmt.Sprintf("%s F?, %d(%s)", op, i*bytes, c), v)
		}
	}
	for r := range rows {
		v := []vec{sum(r, 0), sum(r, 1), sum(r, 2), sum(r, 3)}
		end := f.label("end")
		f.line("MOVD %s, %s", cTile, c)
		f.line("ADD %s, %s, %s", k, cTile, next)
		for _, v := range v {
			f.do("fmul/lane", v, v, lane{alpha, 0})
		}
		narrow := f.label("narrow")
		f.line("CMP $16, %s", columns)
		f.line("BLT %s", narrow)
		part("FMOVQ", 16, v...)
		f.line("B %s", end)
		f.place(narrow)
		for _, w := range []struct {
			bit, bytes int
			op         string
			v          []vec
			move       func()
		}{
			{3, 16, "FMOVQ", v[:2], func() { f.do("orr", v[0], v[2], v[2]); f.do("orr", v[1], v[3], v[3]) }},
			{2, 16, "FMOVQ", v[:1], func() { f.do("orr", v[0], v[1], v[1]) }},
			{1, 8, "FMOVD", v[:1], func() { f.do("dup/64", v[0], lane{v[0], 1}) }},
			{0, 4, "FMOVS", v[:1], nil},
		} {
			less := f.label("less")
			f.line("TBZ $%d, %s, %s", w.bit, columns, less)
			part(w.op, w.bytes, w.v...)
			if w.move != nil {
				f.line("ADD $%d, %s", w.bytes*len(w.v), c)
				w.move()
			}
			f.place(less)
		}
		f.place(end)
		f.line("MOVD %s, %s", next, cTile)
	}
}
