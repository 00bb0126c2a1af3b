package main

import (
	"fmt"
	"math"
	"slices"
)

// Values of vectors. Methods named after arithmetic return their result as a new value;
// where an operand may be a constant it is a lane (see number).

// op returns the value of an instruction.
func (f *function) op(name string, args ...any) vec {
	v := f.value()
	f.do(name, append([]any{v}, args...)...)
	return v
}

// all returns x in every lane: a new value if it is a lane, else x.
func (f *function) all(x any) vec {
	if l, ok := x.(lane); ok {
		return f.op("dup", l)
	}
	return x.(vec)
}

// everywhere returns a constant in every lane, to the function's end.
func (f *function) everywhere(bits uint32) vec {
	if v, ok := f.whole[bits]; ok {
		return v
	}
	v := f.keep(f.value())
	f.whole[bits] = v
	f.first = append(f.first, line{machine: &machine{"dup", []any{v, f.bits(bits)}}})
	return v
}

func (f *function) everywhere32(x float64) vec { return f.everywhere(math.Float32bits(float32(x))) }

func (f *function) zeros() vec {
	v := f.value()
	f.into("VMOVI $0, V?.B16", v)
	return v
}

// copy returns a value that may be changed.
func (f *function) copy(v vec) vec { return f.op("orr", v, v) }

func byLane(name string, b any) string {
	if _, ok := b.(lane); ok {
		return name + "/lane"
	}
	return name
}

func (f *function) add(a, b vec) vec { return f.op("fadd", a, b) }
func (f *function) sub(a, b vec) vec { return f.op("fsub", a, b) }
func (f *function) div(a, b vec) vec { return f.op("fdiv", a, b) }

func (f *function) mul(a vec, b any) vec { return f.op(byLane("fmul", b), a, b) }

// fma returns a·b + c, and fms c − a·b.
func (f *function) fma(a vec, b, c any) vec { return f.fused("fmla", a, b, c) }
func (f *function) fms(a vec, b, c any) vec { return f.fused("fmls", a, b, c) }

func (f *function) fused(name string, a vec, b, c any) vec {
	r := f.all(c)
	if _, ok := c.(vec); ok {
		r = f.copy(r)
	}
	f.do(byLane(name, b), r, a, b)
	return r
}

// max and min give NaN where x is NaN.
func (f *function) max(x vec, limit float64) vec { return f.op("fmax", x, f.everywhere32(limit)) }
func (f *function) min(x vec, limit float64) vec { return f.op("fmin", x, f.everywhere32(limit)) }

// clamp returns x within ±limit; NaN stays NaN.
func (f *function) clamp(x vec, limit float64) vec { return f.min(f.max(x, -limit), limit) }

// polynomial returns Σ coefficient_i·x^i.
func (f *function) polynomial(x vec, coefficients ...float64) vec {
	r := f.all(f.number(coefficients[len(coefficients)-1]))
	for _, c := range slices.Backward(coefficients[:len(coefficients)-1]) {
		r = f.fma(r, x, f.number(c))
	}
	return r
}

const signBit = 1 << 31

// negative returns −|x|.
func (f *function) negative(x vec) vec { return f.op("orr", x, f.everywhere(signBit)) }

// bySign returns a where the sign bit of s is set, and b elsewhere.
func (f *function) bySign(s, a, b vec) vec {
	mask := f.op("cmlt/zero", s)
	f.do("bsl", mask, a, b)
	return mask
}

// sums returns n cleared values that are kept.
func (f *function) sums(n int) []vec {
	s := make([]vec, n)
	for i := range s {
		s[i] = f.keep(f.zeros())
	}
	return s
}

// over returns op over all registers and then, pairwise, over their lanes, in every lane.
func (f *function) over(op string, acc []vec) vec {
	for n := len(acc) / 2; n > 0; n /= 2 {
		for i := range n {
			f.do(op, acc[i], acc[i], acc[i+n])
		}
	}
	pair := f.op(op+"p", acc[0], acc[0])
	return f.op(op+"p", pair, pair)
}

// scalar loads a parameter into every lane, to the function's end.
func (f *function) scalar(name string) vec {
	v := f.value()
	f.into(fmt.Sprintf("FMOVS %s+%d(FP), F?", name, f.param(name).at), v)
	return f.keep(f.op("dup", lane{v, 0}))
}

// array loads a parameter of four numbers or more, and returns its elements.
func (f *function) array(name string, n int) (x []lane) {
	f.line("MOVD $%s+%d(FP), R17", name, f.param(name).at)
	for i := range n / 4 {
		v := f.keep(f.value())
		f.into(fmt.Sprintf("FMOVQ %d(R17), F?", 16*i), v)
		for j := range 4 {
			x = append(x, lane{v, j})
		}
	}
	return x
}

// give stores the first lane as the function's result.
func (f *function) give(v vec) {
	move := "FMOVD"
	if f.result.kind == "float32" {
		move = "FMOVS"
	}
	f.from(fmt.Sprintf("%s F?, ret+%d(FP)", move, f.result.at), v)
}

// span is a vector's worth of a loop, or what is left at its end: two elements, or one.
type span struct {
	*function
	bytes, disp int
	pointers    *[]string
}

// pointer returns the register of a slice, of which the loop takes note.
func (s span) pointer(name string) gp {
	i := slices.Index(*s.pointers, name)
	if i < 0 {
		i = len(*s.pointers)
		*s.pointers = append(*s.pointers, name)
	}
	return loopRegisters[i]
}

// loopCount counts down what a loop has left; the slices' addresses follow.
const loopCount = gp("R0")

var loopRegisters = []gp{"R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8"}

func (s span) move() string { return map[int]string{16: "FMOVQ", 8: "FMOVD", 4: "FMOVS"}[s.bytes] }

// from loads the elements of a slice; lanes behind the end are 0.
func (s span) from(name string) vec {
	v := s.value()
	s.into(fmt.Sprintf("%s %d(%s), F?", s.move(), s.disp, s.pointer(name)), v)
	return v
}

// fromOver is from with elements of the slice, again, in the lanes behind the end.
func (s span) fromOver(name string) vec {
	switch v := s.from(name); s.bytes {
	case 8:
		return s.op("dup/64", lane{v, 0})
	case 4:
		return s.op("dup", lane{v, 0})
	default:
		return v
	}
}

func (s span) to(name string, v vec) {
	s.function.from(fmt.Sprintf("%s F?, %d(%s)", s.move(), s.disp, s.pointer(name)), v)
}

// clear returns v with zeros in the lanes behind the end.
func (s span) clear(v vec) vec {
	switch s.bytes {
	case 8:
		return s.op("orr/8", v, v)
	case 4:
		return s.op("fmov", v)
	}
	return v
}

// loop emits body for all elements of slices as long as the one named: unroll vectors at a
// time, then one, then two elements and one. body gets the vector's number within the
// unrolled ones. It names slices; one in starts has its address computed there.
func (f *function) loop(length string, unroll int, body func(s span, j int)) {
	before := f.code
	f.code = nil
	var pointers []string
	block := func(vectors, bytes int) {
		for j := range vectors {
			body(span{f, bytes, 16 * j, &pointers}, j)
		}
		for i := range pointers {
			f.line("ADD $%d, %s", vectors*bytes, loopRegisters[i])
		}
	}
	steps := []int{unroll, 1}
	if unroll == 1 {
		steps = steps[1:]
	}
	for _, vectors := range steps {
		again, end := f.label("loop"), f.label("end")
		f.line("SUBS $%d, %s", 4*vectors, loopCount)
		f.line("BLT %s", end)
		f.place(again)
		block(vectors, 16)
		f.line("SUBS $%d, %s", 4*vectors, loopCount)
		f.line("BGE %s", again)
		f.place(end)
		if vectors > 1 {
			f.line("ADD $%d, %s", 4*vectors, loopCount)
		}
	}
	one, done := f.label("one"), f.label("done")
	f.line("TBZ $1, %s, %s", loopCount, one) // 4 less than what is left: the last bits are the same
	block(1, 8)
	f.place(one)
	f.line("TBZ $0, %s, %s", loopCount, done)
	block(1, 4)
	f.place(done)

	after := f.code
	f.code = before
	f.line("MOVD %s_len+%d(FP), %s", length, f.param(length).at+8, loopCount)
	for i, name := range pointers {
		if start, ok := f.starts[name]; ok {
			start(loopRegisters[i])
			continue
		}
		f.line("MOVD %s_base+%d(FP), %s", name, f.param(name).at, loopRegisters[i])
	}
	f.code = append(f.code, after...)
}
