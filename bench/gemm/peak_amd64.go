package main

import "mlpfusion/kernel"

// peakFLOPSPerStep counts 12 AVX2 multiply-adds; the AVX-512 loop does 12 of twice
// the width in every other step.
const peakFLOPSPerStep = 12 * 8 * 2

// fmaLoop does n steps of independent multiply-adds.
func fmaLoop(n int) {
	switch {
	case kernel.Level() >= kernel.AVX512:
		fmaLoop512(n)
	case kernel.Level() >= kernel.AVX2:
		fmaLoop256(n)
	}
}

func fmaLoop256(n int)
func fmaLoop512(n int)
