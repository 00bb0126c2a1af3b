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

// round reads x at the given precision.
func round(prec Precision, x float32) float32 {
	if prec == FP32 {
		return x
	}
	return FromBF16(ToBF16(x))
}

// ToBF16Slice writes the bfloat16 bits of src to dst, of at least src's length.
func ToBF16Slice(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	done := 0
	switch {
	case isa >= AVX512:
		done = toBF16AVX512(dst, src)
	case isa >= AVX2:
		done = toBF16AVX2(dst, src)
	}
	for i, v := range src[done:] {
		dst[done+i] = ToBF16(v)
	}
}

// FromBF16Slice writes the values of src to dst, of at least src's length.
func FromBF16Slice(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	done := 0
	switch {
	case isa >= AVX512:
		done = fromBF16AVX512(dst, src)
	case isa >= AVX2:
		done = fromBF16AVX2(dst, src)
	}
	for i, b := range src[done:] {
		dst[done+i] = FromBF16(b)
	}
}
