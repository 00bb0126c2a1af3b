//go:build !noasm

package kernel

func init() {
	neon := &gemmKernel{
		mr: 4, nr: 16, kc: 256, mc: 64, nc: 256, few: 18, step: 1,
		tile:      []func(*tileArgs){nil, tile1x16NEON, tile2x16NEON, tile3x16NEON, tile4x16NEON},
		halves:    []func(*tileArgs){nil, tile1x16HalvesNEON, tile2x16HalvesNEON, tile3x16HalvesNEON, tile4x16HalvesNEON},
		bytes:     []func(*tileArgs){nil, tile1x16BytesNEON, tile2x16BytesNEON, tile3x16BytesNEON, tile4x16BytesNEON},
		transpose: transpose8NEON, copyPanels: copyPanels16NEON, joinRows: joinRows16NEON,
		round: roundBF16NEON, epilogue: epilogueNEON,
	}
	gemms[FP32].add(NEON, neon)
	gemms[INT8].add(NEON, neon)
	gemms[BF16].add(NEON, neon)
}
