package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// DType is the storage type of a tensor, by its name in safetensors headers.
type DType string

// The storage types. Float32 values are read from and written to F64, F32, F16 and
// BF16; the others are carried as raw bytes.
const (
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	F64  DType = "F64"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U64  DType = "U64"
	U32  DType = "U32"
	U16  DType = "U16"
	U8   DType = "U8"
	BOOL DType = "BOOL"
)

// dtypes holds, for each type, its bytes per element and its place in a file:
// the reference writer puts wider types first, so that each tensor is aligned,
// and in just this order.
var dtypes = map[DType]struct{ size, place int }{
	U64: {8, 0}, I64: {8, 1}, F64: {8, 2},
	F32: {4, 3}, U32: {4, 4}, I32: {4, 5},
	BF16: {2, 6}, F16: {2, 7}, U16: {2, 8}, I16: {2, 9},
	I8: {1, 10}, U8: {1, 11}, BOOL: {1, 12},
}

// Size returns the bytes of one element, 0 for an unknown type.
func (d DType) Size() int { return dtypes[d].size }

// IsFloat reports whether the type converts to and from float32.
func (d DType) IsFloat() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// float32Bytes is the memory of a slice of float32.
func float32Bytes(s []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 4*len(s))
}

// decodeFloat32 converts len(dst) elements of src, stored as d, to float32.
func decodeFloat32(dst []float32, src []byte, d DType) {
	switch d {
	case F32:
		if littleEndian {
			copy(float32Bytes(dst), src)
			return
		}
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	case BF16:
		src = src[:2*len(dst)]
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	case F16:
		src = src[:2*len(dst)]
		for i := range dst {
			dst[i] = float16to32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// encodeFloat32 rounds src to d, to nearest even, into dst. It returns the
// index of the first finite value that is too large for d, or -1.
func encodeFloat32(dst []byte, src []float32, d DType) int {
	switch d {
	case F32:
		if littleEndian {
			copy(dst, float32Bytes(src))
			return -1
		}
		for i, v := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case F64:
		for i, v := range src {
			binary.LittleEndian.PutUint64(dst[8*i:], math.Float64bits(float64(v)))
		}
	case BF16:
		for i, v := range src {
			h := float32toBF16(v)
			if h&0x7fff == 0x7f80 && !math.IsInf(float64(v), 0) {
				return i
			}
			binary.LittleEndian.PutUint16(dst[2*i:], h)
		}
	case F16:
		for i, v := range src {
			h := float32to16(v)
			if h&0x7fff == 0x7c00 && !math.IsInf(float64(v), 0) {
				return i
			}
			binary.LittleEndian.PutUint16(dst[2*i:], h)
		}
	}
	return -1
}

// float16to32 is exact. The product moves the exponent's bias from 15 to 127
// and makes subnormals normal.
func float16to32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	magnitude := uint32(h&0x7fff) << 13
	if h&0x7c00 == 0x7c00 { // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | magnitude)
	}
	const twoTo112 = 1 << 112
	return math.Float32frombits(sign | math.Float32bits(math.Float32frombits(magnitude)*twoTo112))
}

// float32to16 rounds to nearest even; a value of 65520 or more becomes infinity.
func float32to16(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	bits &= 0x7fffffff
	switch {
	case bits > 0x7f800000: // NaN stays NaN: keep the payload's upper bits, set the quiet one
		return sign | 0x7e00 | uint16(bits>>13)&0x1ff
	case bits >= 0x477ff000:
		return sign | 0x7c00
	case bits < 0x38800000: // below 2^-14: subnormal, in steps of 2^-24
		// Adding 1/2 leaves the value's bits above 2^-24 in the sum's fraction,
		// rounded by the addition itself.
		sum := math.Float32frombits(bits) + 0.5
		return sign | uint16(math.Float32bits(sum)-math.Float32bits(0.5))
	}
	odd := bits >> 13 & 1
	return sign | uint16((bits-(112<<23)+0xfff+odd)>>13)
}

// float32toBF16 rounds to nearest even.
func float32toBF16(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 { // NaN: rounding up could carry it to infinity or -0
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// sizeOf returns the elements and bytes of a tensor, or what is wrong with it.
func sizeOf(d DType, shape []int) (elements, bytes int, err error) {
	if d.Size() == 0 {
		return 0, 0, fmt.Errorf("expected a known dtype (F32, F16, BF16, …), found %q", string(d))
	}
	elements = 1
	for _, n := range shape {
		if n < 0 {
			return 0, 0, fmt.Errorf("expected a shape of sizes of at least 0, found %v", shape)
		}
		if n > 0 && elements > math.MaxInt/8/n {
			return 0, 0, fmt.Errorf("shape %v has more elements than memory can hold", shape)
		}
		elements *= n
	}
	return elements, elements * d.Size(), nil
}
