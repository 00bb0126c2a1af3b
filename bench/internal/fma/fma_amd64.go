package fma

import "mlpfusion/kernel"

// floats does n steps of independent float32 multiply-adds: 12 AVX2 registers, or
// 12 AVX-512 ones every other step.
func floats(n int) {
	switch {
	case kernel.Has(kernel.AVX512):
		floats512(n)
	case kernel.Has(kernel.AVX2):
		floats256(n)
	default:
		floatsGo(n)
	}
}

func floats256(n int)
func floats512(n int)

// pairs does n steps of those of bfloat16 into float32: 12 AVX-512 registers of
// pairs every fourth step. It needs AVX512_BF16.
func pairs(n int)
