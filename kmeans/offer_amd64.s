//go:build !noasm

#include "go_asm.h"
#include "textflag.h"

// TAKE settles 8 rows, at byte off: acc holds their products with the cluster.
// R8 norm, R9 draw, R10 of, R11 cost, R12 to, R13 luck; Y8 scale, Y9 own,
// Y10 share, Y11 temperature, Y12 name.
#define TAKE(acc, off, next) \
	VADDPS       off(R8), Y9, Y13;     \
	VFMADD231PS  acc, Y8, Y13;         \
	VMULPS       Y10, Y13, Y13;        \
	VMOVUPS      off(R9), Y14;         \
	VFNMADD231PS Y14, Y11, Y13;        \
	VMOVUPS      off(R11), Y15;        \
	VCMPPS       $0x11, Y15, Y13, acc; \
	VMOVMSKPS    acc, AX;              \
	TESTL        AX, AX;               \
	JZ           next;                 \
	VPCMPEQD     off(R10), Y12, Y15;   \
	VPANDN       acc, Y15, acc;        \
	VMOVUPS      off(R11), Y15;        \
	VBLENDVPS    acc, Y13, Y15, Y15;   \
	VMOVUPS      Y15, off(R11);        \
	VMOVUPS      off(R12), Y15;        \
	VBLENDVPS    acc, Y12, Y15, Y15;   \
	VMOVUPS      Y15, off(R12);        \
	VMOVUPS      off(R13), Y15;        \
	VBLENDVPS    acc, Y14, Y15, Y15;   \
	VMOVUPS      Y15, off(R13);        \
next:

// func offerAVX2(o *offer)
TEXT ·offerAVX2(SB), NOSPLIT, $0-8
	MOVQ o+0(FP), DI
	MOVQ offer_g(DI), SI
	XORQ BX, BX              // bytes done

lanes:
	MOVQ   offer_stride(DI), R8
	SHLQ   $2, R8
	MOVQ   offer_rows(DI), R9
	MOVQ   (offer_rows+8)(DI), CX
	MOVQ   offer_coef(DI), R10
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
	VXORPS Y4, Y4, Y4
	VXORPS Y5, Y5, Y5
	VXORPS Y6, Y6, Y6
	VXORPS Y7, Y7, Y7
	TESTQ  CX, CX
	JZ     settle

member:
	// The rows lie far apart in memory: ask for the one 8 members on.
	MOVLQSX      32(R9), AX
	IMULQ        R8, AX
	PREFETCHT0   (SI)(AX*1)
	PREFETCHT0   64(SI)(AX*1)
	PREFETCHT0   128(SI)(AX*1)
	PREFETCHT0   192(SI)(AX*1)
	MOVLQSX      (R9), AX
	VBROADCASTSS (R10)(AX*4), Y8
	IMULQ        R8, AX
	ADDQ         SI, AX
	VFMADD231PS  (AX), Y8, Y0
	VFMADD231PS  32(AX), Y8, Y1
	VFMADD231PS  64(AX), Y8, Y2
	VFMADD231PS  96(AX), Y8, Y3
	VFMADD231PS  128(AX), Y8, Y4
	VFMADD231PS  160(AX), Y8, Y5
	VFMADD231PS  192(AX), Y8, Y6
	VFMADD231PS  224(AX), Y8, Y7
	ADDQ         $4, R9
	DECQ         CX
	JNZ          member

settle:
	VBROADCASTSS offer_scale(DI), Y8
	VBROADCASTSS offer_own(DI), Y9
	VBROADCASTSS offer_share(DI), Y10
	VBROADCASTSS offer_temperature(DI), Y11
	VPBROADCASTD offer_name(DI), Y12
	MOVQ         offer_norm(DI), R8
	MOVQ         offer_draw(DI), R9
	MOVQ         offer_of(DI), R10
	MOVQ         offer_cost(DI), R11
	MOVQ         offer_to(DI), R12
	MOVQ         offer_luck(DI), R13
	ADDQ         BX, R8
	ADDQ         BX, R9
	ADDQ         BX, R10
	ADDQ         BX, R11
	ADDQ         BX, R12
	ADDQ         BX, R13
	TAKE(Y0, 0, next1)
	TAKE(Y1, 32, next2)
	TAKE(Y2, 64, next3)
	TAKE(Y3, 96, next4)
	TAKE(Y4, 128, next5)
	TAKE(Y5, 160, next6)
	TAKE(Y6, 192, next7)
	TAKE(Y7, 224, next8)
	ADDQ         $256, SI
	ADDQ         $256, BX
	MOVQ         (offer_cost+8)(DI), AX
	SHLQ         $2, AX
	CMPQ         BX, AX
	JLT          lanes
	VZEROUPPER
	RET
