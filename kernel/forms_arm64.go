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
	bf16 := *neon
	bf16.kc, bf16.pairs = 512, true
	bf16.tile = []func(*tileArgs){nil, tile1x16BF16, tile2x16BF16, tile3x16BF16, tile4x16BF16}
	bf16.halves, bf16.bytes = nil, nil
	bf16.pairPanels, bf16.pairColumns, bf16.pairRow, bf16.pairRows = pairPanels16, pairColumns16, pairRow16, pairRows16
	gemms[FP32].add(NEON, neon)
	gemms[INT8].add(NEON, neon)
	gemms[BF16].add(NEON, neon).add(NEON|NEONBF16, &bf16)

	widenWhole.add(NEON, widenNEON)
	widenBytes.add(NEON, widenBytesNEON)
	dot.add(NEON, dotNEON)
	axpy.add(NEON, axpyNEON)
	mul.add(NEON, mulNEON)
	scale.add(NEON, scaleNEON)
	addTo.add(NEON, addToNEON)
	addRows4.add(NEON, addRows4NEON)
	sumSquares.add(NEON, sumSquaresNEON)
	sumSquaresColumns.add(NEON, sumSquaresColumnsNEON)

	softmax.add(NEON, softmaxNEON)
	maxScaled.add(NEON, maxScaledNEON)
	expSum.add(NEON, expSumNEON)
	softmaxGrad.add(NEON, softmaxGradNEON)

	layerNorm.add(NEON, layerNormNEON)
	layerNormGrad.add(NEON, layerNormGradNEON)
	rmsNorm.add(NEON, rmsNormNEON)
	rmsNormGrad.add(NEON, rmsNormGradNEON)
	adamStep.add(NEON, adamStepNEON)
	adamStepColumns.add(NEON, adamStepColumnsNEON)
	dropApply.add(NEON, dropApplyNEON)

	gelu, geluTanh, relu, silu, tanh := &activations[GELU], &activations[GELUTanh], &activations[ReLU], &activations[SiLU], &activations[Tanh]
	gelu.plain.add(NEON, geluNEON)
	gelu.deriv.add(NEON, geluDerivNEON)
	gelu.gated.add(NEON, geluGatedNEON)
	gelu.gatedGrad.add(NEON, geluGatedGradNEON)
	geluTanh.plain.add(NEON, geluTanhNEON)
	geluTanh.deriv.add(NEON, geluTanhDerivNEON)
	geluTanh.gated.add(NEON, geluTanhGatedNEON)
	geluTanh.gatedGrad.add(NEON, geluTanhGatedGradNEON)
	relu.plain.add(NEON, reluNEON)
	relu.deriv.add(NEON, reluDerivNEON)
	relu.gated.add(NEON, reluGatedNEON)
	relu.gatedGrad.add(NEON, reluGatedGradNEON)
	silu.plain.add(NEON, siluNEON)
	silu.deriv.add(NEON, siluDerivNEON)
	silu.gated.add(NEON, siluGatedNEON)
	silu.gatedGrad.add(NEON, siluGatedGradNEON)
	tanh.plain.add(NEON, tanhNEON)
	tanh.deriv.add(NEON, tanhDerivNEON)
	tanh.gated.add(NEON, tanhGatedNEON)
	tanh.gatedGrad.add(NEON, tanhGatedGradNEON)
}

// softmaxNEON is Softmax, for at least one row.
func softmaxNEON(x []float32, n int) {
	for ; len(x) > 0; x = x[n:] {
		row := x[:n]
		scaleNEON(row, 1/expSumNEON(row, 1, maxScaledNEON(row, 1)))
	}
}
