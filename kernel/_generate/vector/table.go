package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A gate is a function x·s(x) with s(x) + s(−x) = 1, and its derivative.
type gate func(x float64) (f, d float64)

// A table holds the coefficients of a gate's polynomials, by degree. There are 32
// polynomials: AVX-512 chooses among 32 numbers in two registers by one instruction,
// VPERMI2PS. AVX2 has nothing like it.
//
// They give g(z) = −z·s(−z), the gate of −z, for z near multiples of tableStep; from
// the last multiple, 7.75, on g counts as −0. For x < 0 the gate is g(−x) and its
// derivative −g'(−x), for others x + g(x) and 1 + g'(x).
type table [tableDegree + 1][2]VecVirtual

const (
	tableStep   = 0.25
	tableLast   = 31
	tableDegree = 5
)

// table emits the loading of a gate's table.
func (w lanes) table(name string, sigma gate) (t table) {
	memory, ok := tables[name]
	if !ok {
		memory = GLOBL(name+"Table", RODATA|NOPTR)
		var p [tableLast + 1][]float64
		for n := range p {
			p[n] = sigma.polynomial(n)
		}
		for i := range t {
			for n := range p {
				DATA(4*(len(p)*i+n), U32(math.Float32bits(float32(p[n][i]))))
			}
		}
		tables[name] = memory
	}
	for i := range t {
		for half := range t[i] {
			t[i][half] = w.load(memory.Offset(4 * int(w) * (2*i + half)))
		}
	}
	return t
}

var tables = map[string]Mem{}

// polynomial returns the coefficients of g around n·tableStep. It is exact there, and
// its derivative is g' at the Chebyshev points of half a step either way: one table
// serves for both, within 1.2e-7 of GELU's derivative and 6e-9 of itself.
func (sigma gate) polynomial(n int) []float64 {
	p := make([]float64, tableDegree+1)
	if n == tableLast {
		for i := range p {
			p[i] = math.Copysign(0, -1) // adds up to −0
		}
		return p
	}
	middle := float64(n) * tableStep
	p[0], _ = sigma(-middle)
	// Newton's interpolation: each point t_i adds a multiple of the product of the
	// t − t_k of those before it.
	slope, product := make([]float64, tableDegree), make([]float64, tableDegree+1)
	product[0] = 1
	for i := range slope {
		t := tableStep / 2 * math.Cos(math.Pi*(float64(i)+0.5)/tableDegree)
		_, d := sigma(-middle - t)
		c := (-d - value(slope, t)) / value(product, t)
		for j := tableDegree; j >= 0; j-- {
			if j < tableDegree {
				slope[j] += c * product[j]
			}
			product[j] *= -t
			if j > 0 {
				product[j] += product[j-1]
			}
		}
	}
	for i, c := range slope {
		p[i+1] = c / float64(i+1)
	}
	return p
}

// value returns Σ p_i·x^i.
func value(p []float64, x float64) (y float64) {
	for i := len(p) - 1; i >= 0; i-- {
		y = y*x + p[i]
	}
	return y
}

// gate returns the gate and, when asked to, its derivative.
func (t table) gate(x VecVirtual, deriv bool) (f, d VecVirtual) {
	const w = avx512
	z := w.min(w.and(x, w.bits(1<<31-1)), w.f32(tableLast*tableStep))
	// In float32s from 2^23·tableStep on the lowest bit counts tableStep: the addition
	// rounds z to n steps and leaves n in the low five bits, which VPERMI2PS reads.
	magic := w.f32(1.5 * (1 << 23) * tableStep)
	n := w.add(z, magic)
	z = w.sub(z, w.sub(n, magic))
	var c [tableDegree + 1]VecVirtual
	for i := tableDegree; i >= 0; i-- {
		c[i] = w.reg()
		VMOVAPS(n, c[i])
		VPERMI2PS(t[i][1], t[i][0], c[i])
	}
	// Horner's rule, a step behind for the derivative.
	f = c[tableDegree]
	if deriv {
		d = w.reg()
		VMOVAPS(f, d)
	}
	for i := tableDegree - 1; i >= 0; i-- {
		if deriv && i < tableDegree-1 {
			VFMADD213PS(f, z, d)
		}
		VFMADD213PS(c[i], z, f)
	}
	positive := K()
	VPTESTNMD(w.signs(), x, positive)
	VADDPS(f, x, positive, f)
	if deriv {
		slope := d
		d = w.xor(slope, w.signs())
		VADDPS(w.f32(1), slope, positive, d)
	}
	return f, d
}
