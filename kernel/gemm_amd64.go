//go:build !noasm

package kernel

// The functions of gemm_amd64.s, which kernel/_generate/gemm writes.
// Strides are in bytes. A mask is int32 words, ones for the elements that
// exist (see maskFor). A tile function is called with its number of rows ×
// columns of a tile; tileArgs says what it does.

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

//go:noescape
func tile1x16HalvesAVX2(args *tileArgs)

//go:noescape
func tile2x16HalvesAVX2(args *tileArgs)

//go:noescape
func tile3x16HalvesAVX2(args *tileArgs)

//go:noescape
func tile4x16HalvesAVX2(args *tileArgs)

//go:noescape
func tile5x16HalvesAVX2(args *tileArgs)

//go:noescape
func tile6x16HalvesAVX2(args *tileArgs)

//go:noescape
func tile1x16BytesAVX2(args *tileArgs)

//go:noescape
func tile2x16BytesAVX2(args *tileArgs)

//go:noescape
func tile3x16BytesAVX2(args *tileArgs)

//go:noescape
func tile4x16BytesAVX2(args *tileArgs)

//go:noescape
func tile5x16BytesAVX2(args *tileArgs)

//go:noescape
func tile6x16BytesAVX2(args *tileArgs)

//go:noescape
func tile1x32AVX512(args *tileArgs)

//go:noescape
func tile2x32AVX512(args *tileArgs)

//go:noescape
func tile3x32AVX512(args *tileArgs)

//go:noescape
func tile4x32AVX512(args *tileArgs)

//go:noescape
func tile5x32AVX512(args *tileArgs)

//go:noescape
func tile6x32AVX512(args *tileArgs)

//go:noescape
func tile7x32AVX512(args *tileArgs)

//go:noescape
func tile8x32AVX512(args *tileArgs)

//go:noescape
func tile9x32AVX512(args *tileArgs)

//go:noescape
func tile10x32AVX512(args *tileArgs)

//go:noescape
func tile11x32AVX512(args *tileArgs)

//go:noescape
func tile12x32AVX512(args *tileArgs)

//go:noescape
func tile1x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile2x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile3x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile4x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile5x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile6x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile7x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile8x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile9x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile10x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile11x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile12x32HalvesAVX512(args *tileArgs)

//go:noescape
func tile1x32BytesAVX512(args *tileArgs)

//go:noescape
func tile2x32BytesAVX512(args *tileArgs)

//go:noescape
func tile3x32BytesAVX512(args *tileArgs)

//go:noescape
func tile4x32BytesAVX512(args *tileArgs)

//go:noescape
func tile5x32BytesAVX512(args *tileArgs)

//go:noescape
func tile6x32BytesAVX512(args *tileArgs)

//go:noescape
func tile7x32BytesAVX512(args *tileArgs)

//go:noescape
func tile8x32BytesAVX512(args *tileArgs)

//go:noescape
func tile9x32BytesAVX512(args *tileArgs)

//go:noescape
func tile10x32BytesAVX512(args *tileArgs)

//go:noescape
func tile11x32BytesAVX512(args *tileArgs)

//go:noescape
func tile12x32BytesAVX512(args *tileArgs)

//go:noescape
func tile1x32BF16(args *tileArgs)

//go:noescape
func tile2x32BF16(args *tileArgs)

//go:noescape
func tile3x32BF16(args *tileArgs)

//go:noescape
func tile4x32BF16(args *tileArgs)

//go:noescape
func tile5x32BF16(args *tileArgs)

//go:noescape
func tile6x32BF16(args *tileArgs)

//go:noescape
func tile7x32BF16(args *tileArgs)

//go:noescape
func tile8x32BF16(args *tileArgs)

//go:noescape
func tile9x32BF16(args *tileArgs)

//go:noescape
func tile10x32BF16(args *tileArgs)

//go:noescape
func tile11x32BF16(args *tileArgs)

//go:noescape
func tile12x32BF16(args *tileArgs)

//go:noescape
func tile32x32AMX(args *tileArgs)

// transpose8AVX2 writes k groups of 8 floats: the l-th of each of the
// first 8 rows.
//
//go:noescape
func transpose8AVX2(dst *float32, stride int, rows *[16]*float32, k int, mask *int32)

// copyPanels16AVX2 copies k rows into panels of 16 columns, panel bytes apart;
// with a mask one more panel follows, filled up with zeros.
//
//go:noescape
func copyPanels16AVX2(dst, src *float32, stride, panel, panels, k int, mask *int32)

// copyPanels32AVX2 is the same for panels of 32 columns.
//
//go:noescape
func copyPanels32AVX2(dst, src *float32, stride, panel, panels, k int, mask *int32)

// roundBF16AVX2 rounds n floats, a multiple of 8, to bfloat16 in place.
//
//go:noescape
func roundBF16AVX2(x *float32, n int)

// joinRows16AVX2 joins each two rows of 16 floats that hold bfloat16 values to one of
// pairs, the first in the lower halves of the words.
//
//go:noescape
func joinRows16AVX2(dst, src *float32, pairs int)

// joinRows32AVX2 is the same for rows of 32 floats.
//
//go:noescape
func joinRows32AVX2(dst, src *float32, pairs int)

// epilogueAVX2 applies to n elements of c, leaving out nil operands:
// c = (c + bias + add)·scale·mul.
//
//go:noescape
func epilogueAVX2(c, bias, add, scale, mul *float32, n int, mask *int32)

// pairPanels32BF16 rounds k rows of n floats to bfloat16 and joins each two, the
// first in the lower halves of the words: panels of 32 words a pair of rows,
// panel bytes apart, the last one filled up with zeros. A last row that is alone
// is joined with zeros.
//
//go:noescape
func pairPanels32BF16(dst, src *float32, stride, panel, k, n int)

// pairRowBF16 rounds n floats to bfloat16, two to a word.
//
//go:noescape
func pairRowBF16(dst, src *float32, n int)

// transposePairs16BF16 rounds 16 rows of k floats to bfloat16 and writes the
// words of each two, 16 words every 32.
//
//go:noescape
func transposePairs16BF16(dst *float32, rows *[16]*float32, k int)

// pairRows16BF16 rounds k rows of m ≤ 16 floats to bfloat16 and writes the words of
// each two as m rows of words, filled up with zeros to a multiple of 16.
//
//go:noescape
func pairRows16BF16(dst *float32, stride int, src *float32, srcStride, k, m int)

func init() {
	avx2 := &gemmKernel{
		mr: 6, nr: 16, kc: 256, mc: 72, nc: 256, few: 18, step: 1,
		tile: []func(*tileArgs){nil, tile1x16AVX2, tile2x16AVX2, tile3x16AVX2,
			tile4x16AVX2, tile5x16AVX2, tile6x16AVX2},
		halves: []func(*tileArgs){nil, tile1x16HalvesAVX2, tile2x16HalvesAVX2, tile3x16HalvesAVX2,
			tile4x16HalvesAVX2, tile5x16HalvesAVX2, tile6x16HalvesAVX2},
		bytes: []func(*tileArgs){nil, tile1x16BytesAVX2, tile2x16BytesAVX2, tile3x16BytesAVX2,
			tile4x16BytesAVX2, tile5x16BytesAVX2, tile6x16BytesAVX2},
		copyPanels: copyPanels16AVX2, joinRows: joinRows16AVX2,
	}
	avx512 := &gemmKernel{
		mr: 12, nr: 32, kc: 1536, mc: 60, nc: 384, few: 144, step: 1,
		tile: []func(*tileArgs){nil, tile1x32AVX512, tile2x32AVX512, tile3x32AVX512,
			tile4x32AVX512, tile5x32AVX512, tile6x32AVX512, tile7x32AVX512, tile8x32AVX512,
			tile9x32AVX512, tile10x32AVX512, tile11x32AVX512, tile12x32AVX512},
		halves: []func(*tileArgs){nil, tile1x32HalvesAVX512, tile2x32HalvesAVX512, tile3x32HalvesAVX512,
			tile4x32HalvesAVX512, tile5x32HalvesAVX512, tile6x32HalvesAVX512, tile7x32HalvesAVX512, tile8x32HalvesAVX512,
			tile9x32HalvesAVX512, tile10x32HalvesAVX512, tile11x32HalvesAVX512, tile12x32HalvesAVX512},
		bytes: []func(*tileArgs){nil, tile1x32BytesAVX512, tile2x32BytesAVX512, tile3x32BytesAVX512,
			tile4x32BytesAVX512, tile5x32BytesAVX512, tile6x32BytesAVX512, tile7x32BytesAVX512, tile8x32BytesAVX512,
			tile9x32BytesAVX512, tile10x32BytesAVX512, tile11x32BytesAVX512, tile12x32BytesAVX512},
		copyPanels: copyPanels32AVX2, joinRows: joinRows32AVX2,
	}
	if vendor() == "GenuineIntel" {
		avx512.kc = 768 // see docs/decisions/gemm.md, the sizes
	}
	bf16 := &gemmKernel{
		mr: 12, nr: 32, kc: 3072, mc: 60, nc: 384, few: 144, pairs: true, step: 1,
		tile: []func(*tileArgs){nil, tile1x32BF16, tile2x32BF16, tile3x32BF16,
			tile4x32BF16, tile5x32BF16, tile6x32BF16, tile7x32BF16, tile8x32BF16,
			tile9x32BF16, tile10x32BF16, tile11x32BF16, tile12x32BF16},
	}
	amx := &gemmKernel{
		mr: 32, nr: 32, kc: 1024, mc: 128, nc: 256, pairs: true, step: 16, tile: make([]func(*tileArgs), 33),
	}
	for i := range amx.tile {
		amx.tile[i] = tile32x32AMX
	}
	for _, t := range []*gemmKernel{avx2, avx512, bf16, amx} {
		t.transpose, t.round, t.epilogue = transpose8AVX2, roundBF16AVX2, epilogueAVX2
		t.pairPanels, t.pairColumns = pairPanels32BF16, transposePairs16BF16
		t.pairRow, t.pairRows = pairRowBF16, pairRows16BF16
	}
	gemms[FP32].add(AVX2, avx2).add(AVX512, avx512)
	gemms[INT8].add(AVX2, avx2).add(AVX512, avx512)
	// Where bfloat16 is not multiplied faster, it is widened to float32.
	gemms[BF16].add(AVX2, avx2).add(AVX512, avx512).add(AVX512BF16|fastBF16, bf16).add(AVX512BF16|AMX, amx)
}
