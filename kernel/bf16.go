package kernel

import "math"

// ToBF16 rounds x to the nearest bfloat16, ties to even, and returns its bits.
// NaN stays NaN.
func ToBF16(x float32) uint16 {
	b := math.Float32bits(x)
	if x != x {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + (b>>16)&1) >> 16)
}

// FromBF16 returns the value of bfloat16 bits.
func FromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// Widen writes the values of bfloat16 bits to dst.
func Widen(dst []float32, src []uint16) {
	src = src[:len(dst)]
	whole := len(dst) &^ 15 // fills the vectors of every form
	widenWhole.use(dst[:whole], src[:whole])
	widenPortable(dst[whole:], src[whole:])
}

var widenWhole = portable(widenPortable)

func widenPortable(dst []float32, src []uint16) {
	for i, v := range src {
		dst[i] = FromBF16(v)
	}
}

// round reads x at the given precision.
func round(prec Precision, x float32) float32 {
	if prec != BF16 {
		return x
	}
	return FromBF16(ToBF16(x))
}
