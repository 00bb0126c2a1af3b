//go:build !noasm

package kernel

// The functions of gemm_amd64.s, which kernel/_generate/gemm writes.
// Strides are in bytes. A mask is int32 words, ones for the elements that
// exist (see maskFor).

//go:noescape
func tile1x16AVX2(args *tileArgs)

//go:noescape
func tile2x16AVX2(args *tileArgs)

//go:noescape
func tile3x16AVX2(args *tileArgs)

//go:noescape
func tile4x16AVX2(args *tileArgs)

//go:noescape
func tile5x16AVX2(args *tileArgs)

//go:noescape
func tile6x16AVX2(args *tileArgs)

// transpose8AVX2 writes k groups of 8 floats: the l-th of each of 8 rows.
//
//go:noescape
func transpose8AVX2(dst *float32, stride int, rows *[8]*float32, k int, mask *int32)

// copyPanels16AVX2 copies k rows into panels of 16 columns, panel bytes apart;
// with a mask one more panel follows, filled up with zeros.
//
//go:noescape
func copyPanels16AVX2(dst, src *float32, stride, panel, panels, k int, mask *int32)

// copyTileAVX2 copies k groups of up to 8 floats, writing 8 each time.
//
//go:noescape
func copyTileAVX2(dst *float32, dstStride int, src *float32, srcStride, k int, mask *int32)

// roundBF16AVX2 rounds n floats, a multiple of 8, to bfloat16 in place.
//
//go:noescape
func roundBF16AVX2(x *float32, n int)

// epilogueAVX2 applies to n elements of c, leaving out nil operands:
// c = (c + bias + add)·scale·mul.
//
//go:noescape
func epilogueAVX2(c, bias, add, scale, mul *float32, n int, mask *int32)

func init() {
	gemmFor[AVX2] = &gemmKernel{
		mr: 6, nr: 16, kc: 256, mc: 72,
		tile: []func(*tileArgs){nil, tile1x16AVX2, tile2x16AVX2, tile3x16AVX2,
			tile4x16AVX2, tile5x16AVX2, tile6x16AVX2},
		transpose:  transpose8AVX2,
		copyPanels: copyPanels16AVX2,
		copyTile:   copyTileAVX2,
		round:      roundBF16AVX2,
		epilogue:   epilogueAVX2,
	}
}
