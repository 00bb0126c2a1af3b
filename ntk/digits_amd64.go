//go:build !noasm

package ntk

import (
	"golang.org/x/sys/cpu"

	"mlpfusion/kernel"
)

const vector2 = 32 // bytes of an AVX2 vector

// useDigits tells whether whole numbers are faster than float32 here.
func useDigits() bool { return kernel.Has(kernel.AVX2) }

// useVNNI tells whether there are byte products that sum to 32 bits.
func useVNNI() bool { return kernel.Has(kernel.AVX512) && cpu.X86.HasAVX512VNNI }

// absMax is absMaxPortable with AVX2, for a multiple of 32 elements.
func absMax(g []float32) float32 {
	if !kernel.Has(kernel.AVX2) {
		return absMaxPortable(g)
	}
	return absMaxAVX2(&g[0], len(g)/vector2)
}

// split is splitPortable with AVX2, for a multiple of 32 elements.
func split(hi, lo []byte, sign []int8, g []float32, inverse float32) int32 {
	if !kernel.Has(kernel.AVX2) {
		return splitPortable(hi, lo, sign, g, inverse)
	}
	_, _, _ = hi[len(g)-1], lo[len(g)-1], sign[len(g)-1]
	return splitAVX2(&hi[0], &lo[0], &sign[0], &g[0], inverse, len(g)/vector2)
}

// signDots is signDotsPortable with AVX-512 VNNI or AVX2. Strides are multiples of
// 64.
func signDots(out []int32, hi, lo []byte, sign []int8, stride, groups int) {
	if !kernel.Has(kernel.AVX2) {
		signDotsPortable(out, hi, lo, sign, stride, groups)
		return
	}
	_, _, _, _ = out[4*digitGroup*groups-1], hi[2*stride-1], lo[2*stride-1], sign[digitGroup*groups*stride-1]
	if useVNNI() {
		signDotsVNNI(&out[0], &hi[0], &lo[0], &sign[0], stride, groups)
		return
	}
	signDots2(out, hi, lo, sign, stride, groups)
}

// signDots2 is signDots with AVX2, which sums in 16 bits: at most 64 vectors, for
// a sum of two products is at most 510 in size, and 64·510 < 2¹⁵.
func signDots2(out []int32, hi, lo []byte, sign []int8, stride, groups int) {
	const most = 64
	for from := 0; from < stride; from += most * vector2 {
		steps := min(most, (stride-from)/vector2)
		signDotsAVX2(&out[0], &hi[from], &lo[from], &sign[from], stride, steps, groups*digitGroup/2)
	}
}

//go:noescape
func absMaxAVX2(x *float32, vectors int) float32

//go:noescape
func splitAVX2(hi, lo *byte, sign *int8, x *float32, inverse float32, vectors int) int32

//go:noescape
func signDotsAVX2(out *int32, hi, lo *byte, sign *int8, stride, steps, pairs int)

//go:noescape
func signDotsVNNI(out *int32, hi, lo *byte, sign *int8, stride, groups int)
