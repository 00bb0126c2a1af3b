package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// lanes is an instruction set, by the float32s in its vectors. Its methods
// emit instructions; those named after arithmetic return their result in a new
// register.
type lanes int

const (
	avx2   lanes = 8
	avx512 lanes = 16
)

func (w lanes) suffix() string {
	if w == avx2 {
		return "AVX2"
	}
	return "AVX512"
}

func (w lanes) reg() VecVirtual {
	if w == avx2 {
		return YMM()
	}
	return ZMM()
}

// zero returns a register of zeros.
func (w lanes) zero() VecVirtual {
	r := w.reg()
	if w == avx2 {
		VXORPS(r, r, r)
	} else {
		VPXORD(r, r, r)
	}
	return r
}

// bits returns the address of a constant, repeated in every lane.
func (w lanes) bits(v uint32) Mem {
	if m, ok := constants[v]; ok {
		return m
	}
	m := GLOBL(fmt.Sprintf("const%08x", v), RODATA|NOPTR)
	for i := range int(avx512) {
		DATA(4*i, U32(v))
	}
	constants[v] = m
	return m
}

var constants = map[uint32]Mem{}

// f32 is bits for a float32.
func (w lanes) f32(v float64) Mem { return w.bits(math.Float32bits(float32(v))) }

// load returns the vector at an address.
func (w lanes) load(m Mem) VecVirtual {
	r := w.reg()
	VMOVUPS(m, r)
	return r
}

// broadcast returns a scalar from memory in every lane.
func (w lanes) broadcast(m Mem) VecVirtual {
	r := w.reg()
	VBROADCASTSS(m, r)
	return r
}

// param returns a float32 parameter in every lane.
func (w lanes) param(name string) VecVirtual {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return w.broadcast(a.Addr)
}

// element returns an array parameter's i-th element in every lane.
func (w lanes) element(name string, i int) VecVirtual {
	a, err := Param(name).Index(i).Resolve()
	if err != nil {
		panic(err)
	}
	return w.broadcast(a.Addr)
}

// The second operand of these may be in memory.

func (w lanes) add(a, b Op) VecVirtual { r := w.reg(); VADDPS(b, a, r); return r }
func (w lanes) sub(a, b Op) VecVirtual { r := w.reg(); VSUBPS(b, a, r); return r }
func (w lanes) mul(a, b Op) VecVirtual { r := w.reg(); VMULPS(b, a, r); return r }
func (w lanes) div(a, b Op) VecVirtual { r := w.reg(); VDIVPS(b, a, r); return r }
func (w lanes) and(a, b Op) VecVirtual { r := w.reg(); VANDPS(b, a, r); return r }
func (w lanes) or(a, b Op) VecVirtual  { r := w.reg(); VORPS(b, a, r); return r }
func (w lanes) shl(a Op, n int) VecVirtual {
	r := w.reg()
	VPSLLD(Imm(uint64(n)), a, r)
	return r
}
func (w lanes) shr(a Op, n int) VecVirtual {
	r := w.reg()
	VPSRLD(Imm(uint64(n)), a, r)
	return r
}

// xor is exclusive or of integers.
func (w lanes) xor(a, b Op) VecVirtual {
	r := w.reg()
	if w == avx2 {
		VPXOR(b, a, r)
	} else {
		VPXORD(b, a, r)
	}
	return r
}

// max and min give NaN where x is NaN.
func (w lanes) max(x VecVirtual, limit Mem) VecVirtual {
	r := w.load(limit)
	VMAXPS(x, r, r)
	return r
}
func (w lanes) min(x VecVirtual, limit Mem) VecVirtual {
	r := w.load(limit)
	VMINPS(x, r, r)
	return r
}

// fma returns a·b + c.
func (w lanes) fma(a, b, c Op) VecVirtual {
	r := w.reg()
	VMOVUPS(c, r)
	VFMADD231PS(b, a, r)
	return r
}

// polynomial returns Σ coefficient_i·x^i.
func (w lanes) polynomial(x VecVirtual, coefficients ...float64) VecVirtual {
	last := len(coefficients) - 1
	r := w.load(w.f32(coefficients[last]))
	for i := last - 1; i >= 0; i-- {
		VFMADD213PS(w.f32(coefficients[i]), x, r)
	}
	return r
}

// bySign returns a where the sign bit of s is set, and b elsewhere.
func (w lanes) bySign(s, a, b VecVirtual) VecVirtual {
	r := w.reg()
	if w == avx2 {
		VBLENDVPS(s, a, b, r)
		return r
	}
	k := K()
	VPMOVD2M(s, k)
	VBLENDMPS(a, b, k, r)
	return r
}

// keepUnlessLess returns v, or 0 where a < b as signed integers.
func (w lanes) keepUnlessLess(a, b, v VecVirtual) VecVirtual {
	r := w.reg()
	if w == avx2 {
		VPCMPGTD(a, b, r)
		VPANDN(v, r, r)
		return r
	}
	k := K()
	VPCMPD(Imm(5), b, a, k) // not less
	VMOVAPS_Z(v, k, r)
	return r
}

// reduce returns op over the lanes of all registers, in one order: registers
// first, then halves of what is left. op has two sources and a destination.
func (w lanes) reduce(op func(...Op), acc []VecVirtual) VecVirtual {
	x := w.reduce64(op, acc)
	t := XMM()
	VPSHUFD(Imm(0b01), x.AsX(), t)
	op(t, x.AsX(), x.AsX())
	return x
}

// reduce64 is reduce for lanes of 64 bits.
func (w lanes) reduce64(op func(...Op), acc []VecVirtual) VecVirtual {
	for n := len(acc) / 2; n > 0; n /= 2 {
		for i := range n {
			op(acc[i+n], acc[i], acc[i])
		}
	}
	x := acc[0]
	if w == avx512 {
		t := YMM()
		VEXTRACTF64X4(Imm(1), x.AsZ(), t)
		op(t, x.AsY(), x.AsY())
	}
	t := XMM()
	VEXTRACTF128(Imm(1), x.AsY(), t)
	op(t, x.AsX(), x.AsX())
	VPSHUFD(Imm(0b1110), x.AsX(), t)
	op(t, x.AsX(), x.AsX())
	return x
}

// span is one vector's worth of a loop: the elements from index i on, and for
// the last elements the mask of those that exist.
type span struct {
	lanes
	i    GPVirtual
	disp int // of the vector, bytes
	mask Register
}

func (s span) at(p Register) Mem { return Mem{Base: p, Index: s.i, Scale: 4, Disp: s.disp} }

// from loads the vector that starts at p's element i; what is beyond the end
// reads as 0.
func (s span) from(p Register) VecVirtual {
	r := s.reg()
	switch {
	case s.mask == nil:
		VMOVUPS(s.at(p), r)
	case s.lanes == avx2:
		VMASKMOVPS(s.at(p), s.mask, r)
	default:
		VMOVUPS_Z(s.at(p), s.mask, r)
	}
	return r
}

func (s span) to(p Register, v VecVirtual) {
	switch {
	case s.mask == nil:
		VMOVUPS(v, s.at(p))
	case s.lanes == avx2:
		VMASKMOVPS(v, s.mask, s.at(p))
	default:
		VMOVUPS(v, s.mask, s.at(p))
	}
}

// clear zeroes the lanes of v that are beyond the end.
func (s span) clear(v VecVirtual) {
	switch {
	case s.mask == nil:
	case s.lanes == avx2:
		VANDPS(s.mask, v, v)
	default:
		VMOVAPS_Z(v, s.mask, v)
	}
}

// loop emits body for all elements 0 ≤ i < n: unroll vectors at a time, then
// one at a time, then the rest under a mask. body gets the vector's number
// within the unrolled ones.
func (w lanes) loop(n Register, unroll int, body func(s span, j int)) {
	rest := GP64()
	MOVQ(n, rest)
	i := w.wholeVectors(rest, unroll, body)
	done := label("done")
	TESTQ(rest, rest)
	JZ(LabelRef(done))
	body(span{w, i, 0, w.firstLanes(rest)}, 0)
	Label(done)
}

// wholeVectors is loop without the rest: it leaves the number of elements that
// are left over in rest, and returns the index of the first.
func (w lanes) wholeVectors(rest Register, unroll int, body func(s span, j int)) (i GPVirtual) {
	i = GP64()
	XORQ(i, i)
	block := func(vectors int) {
		again, end := label("loop"), label("end")
		Label(again)
		CMPQ(rest, U32(vectors*int(w)))
		JLT(LabelRef(end))
		for j := range vectors {
			body(span{w, i, j * 4 * int(w), nil}, j)
		}
		ADDQ(U32(vectors*int(w)), i)
		SUBQ(U32(vectors*int(w)), rest)
		JMP(LabelRef(again))
		Label(end)
	}
	if unroll > 1 {
		block(unroll)
	}
	block(1)
	return i
}

// firstLanes returns a mask of the first n lanes, 0 < n < w.
func (w lanes) firstLanes(n Register) Register {
	if w == avx512 {
		all, k := GP32(), K()
		MOVL(U32(1<<32-1), all)
		BZHIL(n.(GP).As32(), all, all)
		KMOVW(all, k)
		return k
	}
	if maskTable == nil {
		m := GLOBL("maskTable", RODATA|NOPTR)
		for i := range 2 * int(avx2) {
			DATA(4*i, U32(uint32(-(1-i/int(avx2))&(1<<32-1))))
		}
		maskTable = &m
	}
	p, mask := GP64(), YMM()
	LEAQ(*maskTable, p)
	VMOVDQU(Mem{Base: p, Disp: 4 * int(avx2)}.Idx(negated(n), 4), mask)
	return mask
}

var maskTable *Mem

func negated(r Register) Register {
	n := GP64()
	MOVQ(r, n)
	NEGQ(n)
	return n
}

var labels int

func label(name string) string {
	labels++
	return fmt.Sprintf("%s%d", name, labels)
}

// slice returns the address of a slice parameter's first element.
func slice(name string) Register { return Load(Param(name).Base(), GP64()) }

// length returns the length of a slice parameter.
func length(name string) Register { return Load(Param(name).Len(), GP64()) }
