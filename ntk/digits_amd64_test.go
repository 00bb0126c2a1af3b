//go:build !noasm

package ntk

import "mlpfusion/kernel"

// signDotsForms are the forms of signDots that this machine runs.
func signDotsForms() map[string]func(out []int32, hi, lo []byte, sign []int8, stride, groups int) {
	forms := map[string]func(out []int32, hi, lo []byte, sign []int8, stride, groups int){"chosen": signDots}
	if kernel.Has(kernel.AVX2) {
		forms["AVX2"] = signDots2
	}
	return forms
}
