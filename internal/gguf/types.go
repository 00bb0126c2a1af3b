package gguf

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Type is how a tensor's elements are stored: in blocks of Block elements and Size
// bytes.
type Type struct {
	Name        string
	Block, Size int
	decode      func(dst []float32, block []byte)
}

// types are those that are read, by their number in the file.
var types = map[uint32]Type{
	0:  {"F32", 1, 4, f32},
	1:  {"F16", 1, 2, f16},
	2:  {"Q4_0", 32, 18, q4_0},
	3:  {"Q4_1", 32, 20, q4_1},
	6:  {"Q5_0", 32, 22, q5_0},
	7:  {"Q5_1", 32, 24, q5_1},
	8:  {"Q8_0", 32, 34, q8_0},
	12: {"Q4_K", 256, 144, q4K},
	13: {"Q5_K", 256, 176, q5K},
	14: {"Q6_K", 256, 210, q6K},
	30: {"BF16", 1, 2, bf16},
}

// others are types that are not read.
var others = map[uint32]string{
	9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
	24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}

func typeName(kind uint32) string {
	if name, ok := others[kind]; ok {
		return name
	}
	return fmt.Sprintf("type %d", kind)
}

func known() string {
	var names []string
	for _, kind := range slices.Sorted(maps.Keys(types)) {
		names = append(names, types[kind].Name)
	}
	return strings.Join(names, ", ")
}

// Bytes returns the size of this many elements, a multiple of the block's.
func (t Type) Bytes(elements int) int64 { return int64(elements/t.Block) * int64(t.Size) }

// Decode turns stored blocks into dst, whose length is a multiple of the block's.
// Values are those of the Python package gguf to the last bit: each product and sum
// is rounded to float32, which the conversions below ask for.
func (t Type) Decode(dst []float32, stored []byte) {
	for len(dst) > 0 {
		t.decode(dst[:t.Block], stored[:t.Size])
		dst, stored = dst[t.Block:], stored[t.Size:]
	}
}

func f32(y []float32, b []byte) { y[0] = math.Float32frombits(binary.LittleEndian.Uint32(b)) }
func f16(y []float32, b []byte) { y[0] = half(b) }
func bf16(y []float32, b []byte) {
	y[0] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
}

// half reads an IEEE half.
func half(b []byte) float32 {
	h := uint32(binary.LittleEndian.Uint16(b))
	sign, exponent, fraction := h>>15<<31, h>>10&31, h&1023
	switch exponent {
	case 0:
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*(1.0/(1<<24))))
	case 31:
		return math.Float32frombits(sign | 255<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// nibbles calls f with each element's place and its low bits: 16 bytes hold
// elements 0 to 15 in their lower halves and 16 to 31 in their upper ones.
func nibbles(qs []byte, f func(i int, q byte)) {
	for i, q := range qs[:16] {
		f(i, q&15)
		f(i+16, q>>4)
	}
}

// fifth returns the fifth bit of element i, as 16 or 0.
func fifth(qh []byte, i int) byte { return qh[i/8] >> (i % 8) & 1 << 4 }

func q4_0(y []float32, b []byte) {
	d := half(b)
	nibbles(b[2:], func(i int, q byte) { y[i] = d * float32(int(q)-8) })
}

func q4_1(y []float32, b []byte) {
	d, m := half(b), half(b[2:])
	nibbles(b[4:], func(i int, q byte) { y[i] = float32(d*float32(q)) + m })
}

func q5_0(y []float32, b []byte) {
	d, qh := half(b), b[2:6]
	nibbles(b[6:], func(i int, q byte) { y[i] = d * float32(int(q|fifth(qh, i))-16) })
}

func q5_1(y []float32, b []byte) {
	d, m, qh := half(b), half(b[2:]), b[4:8]
	nibbles(b[8:], func(i int, q byte) { y[i] = float32(d*float32(q|fifth(qh, i))) + m })
}

func q8_0(y []float32, b []byte) {
	d := half(b)
	for i, q := range b[2:34] {
		y[i] = float32(int8(q)) * d
	}
}

// scaleMin unpacks the six bits of scale and minimum of sub-block j out of 12 bytes.
func scaleMin(s []byte, j int) (scale, least float32) {
	if j < 4 {
		return float32(s[j] & 63), float32(s[j+4] & 63)
	}
	return float32(s[j+4]&15 | s[j-4]>>6<<4), float32(s[j+4]>>4 | s[j]>>6<<4)
}

// kBlock decodes eight sub-blocks of 32 elements, a scale and a minimum each, with
// the bits above the lower four from high, which may be nil.
func kBlock(y []float32, d, dmin float32, scales, high, qs []byte) {
	for j := range 8 {
		scale, least := scaleMin(scales, j)
		scale, least = d*scale, dmin*least
		for i := range 32 {
			q := qs[j/2*32+i] >> (j % 2 * 4) & 15
			if high != nil {
				q |= high[i] >> j & 1 << 4
			}
			y[j*32+i] = float32(scale*float32(q)) - least
		}
	}
}

func q4K(y []float32, b []byte) { kBlock(y, half(b), half(b[2:]), b[4:16], nil, b[16:]) }
func q5K(y []float32, b []byte) { kBlock(y, half(b), half(b[2:]), b[4:16], b[16:48], b[48:]) }

// q6K decodes 16 sub-blocks of 16 elements: four bits and, in pairs, two more.
func q6K(y []float32, b []byte) {
	ql, qh, scales, d := b[:128], b[128:192], b[192:208], half(b[208:])
	for i := range 256 {
		part, at := i/32, i%32 // of 32 elements; four parts share 32 bytes of qh
		low := ql[part/4*64+part%2*32+at] >> (part % 4 / 2 * 4) & 15
		q := int(low|qh[part/4*32+at]>>(part%4*2)&3<<4) - 32
		y[i] = float32(d*float32(int8(scales[i/16]))) * float32(q)
	}
}
