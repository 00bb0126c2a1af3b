package kernel

import "math"

// Dropout's random bits are a function of a seed and a position alone, so that
// the backward pass makes them again and any worker makes the same ones: a
// 32-bit hash of the position's low half (Chris Wellons' triple32, three rounds
// of multiply and xor-shift, with a key before the first and the second), whose
// keys come from the seed and the high half. An element is kept when its hash,
// read as a signed number, is at least a threshold.

var dropApply = portable(dropApplyPortable)

// dropKeys holds what one call needs beside the position.
type dropKeys struct {
	k0, k1 uint32
	least  int32   // the smallest hash that keeps
	scale  float32 // 1/(1−p)
}

const (
	dropMul0 = 0xed5ad4bb
	dropMul1 = 0xac4c1b51
	dropMul2 = 0x31848bab
)

func newDropKeys(seed, offset uint64, p float32) dropKeys {
	z := mix64(mix64(seed+0x9e3779b97f4a7c15) + offset>>32)
	drop := math.Round(float64(p) * (1 << 32)) // hashes of 2^32 that drop
	return dropKeys{uint32(z), uint32(z >> 32), int32(int64(drop) - 1<<31), float32(1 / (1 - float64(p)))}
}

// words returns the fields in order, as the assembly wants them.
func (k *dropKeys) words() [4]uint32 {
	return [4]uint32{k.k0, k.k1, uint32(k.least), math.Float32bits(k.scale)}
}

// mix64 is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, 2014).
func mix64(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// hash returns 32 random bits for a position's low half.
func (k *dropKeys) hash(x uint32) uint32 {
	x ^= k.k0
	x = (x ^ x>>17) * dropMul0
	x ^= k.k1
	x = (x ^ x>>11) * dropMul1
	x = (x ^ x>>15) * dropMul2
	return x ^ x>>14
}

// Uniform writes numbers from [0, 1), a function of seed and offset+i alone.
func Uniform(dst []float32, seed, offset uint64) {
	for len(dst) > 0 {
		n := int(min(uint64(len(dst)), 1<<32-offset&math.MaxUint32))
		k := newDropKeys(seed, offset, 0)
		for i := range dst[:n] {
			dst[i] = float32(k.hash(uint32(offset)+uint32(i))>>8) / (1 << 24)
		}
		dst, offset = dst[n:], offset+uint64(n)
	}
}

// DropoutApply writes src_i/(1−p) or, with probability p, 0 to dst_i. Which
// elements are dropped is a function of seed and offset+i. 0 ≤ p < 1; dst may be
// src.
func DropoutApply(dst, src []float32, seed, offset uint64, p float32) {
	dst = dst[:len(src)]
	for len(src) > 0 {
		// The keys hold up to the next multiple of 2^32.
		n := int(min(uint64(len(src)), 1<<32-offset&math.MaxUint32))
		k := newDropKeys(seed, offset, p)
		dropApply.use(k.words(), dst[:n], src[:n], uint32(offset))
		dst, src, offset = dst[n:], src[n:], offset+uint64(n)
	}
}

// dropApplyPortable applies the keys to positions from at on.
func dropApplyPortable(words [4]uint32, dst, src []float32, at uint32) {
	k := dropKeys{words[0], words[1], int32(words[2]), math.Float32frombits(words[3])}
	for i, v := range src {
		dst[i] = k.drop(v, at+uint32(i))
	}
}

// drop returns v·scale or +0.
func (k *dropKeys) drop(v float32, at uint32) float32 {
	if int32(k.hash(at)) < k.least {
		return 0
	}
	return v * k.scale
}
