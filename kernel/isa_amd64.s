//go:build !noasm

#include "textflag.h"

// func cpuVendor(name *[12]byte)
TEXT ·cpuVendor(SB), NOSPLIT, $0-8
	XORL  AX, AX
	CPUID
	MOVQ  name+0(FP), DI
	MOVL  BX, 0(DI)
	MOVL  DX, 4(DI)
	MOVL  CX, 8(DI)
	RET

// func relax()
TEXT ·relax(SB), NOSPLIT, $0-0
	PAUSE
	PAUSE
	RET
