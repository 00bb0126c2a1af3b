//go:build !noasm

package ntk

import "mlpfusion/kernel"

// useDigits tells whether whole numbers are faster than float32 here.
func useDigits() bool { return kernel.Level() >= kernel.AVX2 }

// absMax is absMaxPortable with AVX2, for a multiple of 32 elements.
func absMax(g []float32) float32 {
	if kernel.Level() < kernel.AVX2 {
		return absMaxPortable(g)
	}
	return absMaxAVX2(&g[0], len(g)/digitWidth)
}

// split is splitPortable with AVX2, for a multiple of 32 elements.
func split(hi, lo []byte, sign []int8, g []float32, inverse float32) int32 {
	if kernel.Level() < kernel.AVX2 {
		return splitPortable(hi, lo, sign, g, inverse)
	}
	_, _, _ = hi[len(g)-1], lo[len(g)-1], sign[len(g)-1]
	return splitAVX2(&hi[0], &lo[0], &sign[0], &g[0], inverse, len(g)/digitWidth)
}

// signDots is signDotsPortable with AVX2, for at most maxSteps steps.
func signDots(out []int32, hi, lo []byte, sign []int8, stride, steps, pairs int) {
	if kernel.Level() < kernel.AVX2 {
		signDotsPortable(out, hi, lo, sign, stride, steps, pairs)
		return
	}
	rows := func(n int) int { return (n-1)*stride + steps*digitWidth }
	_, _, _, _ = out[8*pairs-1], hi[rows(2)-1], lo[rows(2)-1], sign[rows(2*pairs)-1]
	signDotsAVX2(&out[0], &hi[0], &lo[0], &sign[0], stride, steps, pairs)
}

//go:noescape
func absMaxAVX2(x *float32, vectors int) float32

//go:noescape
func splitAVX2(hi, lo *byte, sign *int8, x *float32, inverse float32, vectors int) int32

//go:noescape
func signDotsAVX2(out *int32, hi, lo *byte, sign *int8, stride, steps, pairs int)
