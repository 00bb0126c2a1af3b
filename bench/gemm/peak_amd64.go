package main

import "mlpfusion/kernel"

// fmaLoop does n steps of peakLanes independent multiply-adds: 12 AVX2 registers,
// or 12 AVX-512 ones every other step.
func fmaLoop(n int) {
	switch {
	case kernel.Level() >= kernel.AVX512:
		fmaLoop512(n)
	case kernel.Level() >= kernel.AVX2:
		fmaLoop256(n)
	default:
		fmaLoopGo(n)
	}
}

func fmaLoop256(n int)
func fmaLoop512(n int)
