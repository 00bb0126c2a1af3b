//go:build !noasm

package kernel

func init() {
	dot.add(AVX2, dotAVX2).add(AVX512, dotAVX512)
	axpy.add(AVX2, axpyAVX2).add(AVX512, axpyAVX512)
	mul.add(AVX2, mulAVX2).add(AVX512, mulAVX512)
	scale.add(AVX2, scaleAVX2).add(AVX512, scaleAVX512)
	addTo.add(AVX2, addToAVX2).add(AVX512, addToAVX512)
	widenWhole.add(AVX2, widenAVX2).add(AVX512, widenAVX512)
	widenBytes.add(AVX2, widenBytesAVX2).add(AVX512, widenBytesAVX512)
	addRows4.add(AVX2, addRows4AVX2).add(AVX512, addRows4AVX512)
	sumSquares.add(AVX2, sumSquaresAVX2).add(AVX512, sumSquaresAVX512)
	sumSquaresColumns.add(AVX2, sumSquaresColumnsAVX2).add(AVX512, sumSquaresColumnsAVX512)

	softmax.add(AVX2, softmaxAVX2).add(AVX512, softmaxAVX512)
	maxScaled.add(AVX2, maxScaledAVX2).add(AVX512, maxScaledAVX512)
	expSum.add(AVX2, expSumAVX2).add(AVX512, expSumAVX512)
	softmaxGrad.add(AVX2, softmaxGradAVX2).add(AVX512, softmaxGradAVX512)

	layerNorm.add(AVX2, layerNormAVX2).add(AVX512, layerNormAVX512)
	layerNormGrad.add(AVX2, layerNormGradAVX2).add(AVX512, layerNormGradAVX512)
	rmsNorm.add(AVX2, rmsNormAVX2).add(AVX512, rmsNormAVX512)
	rmsNormGrad.add(AVX2, rmsNormGradAVX2).add(AVX512, rmsNormGradAVX512)
	adamStep.add(AVX2, adamStepAVX2).add(AVX512, adamStepAVX512)
	adamStepColumns.add(AVX2, adamStepColumnsAVX2).add(AVX512, adamStepColumnsAVX512)
	dropApply.add(AVX2, dropApplyAVX2).add(AVX512, dropApplyAVX512)

	gelu, geluTanh, relu, silu, tanh := &activations[GELU], &activations[GELUTanh], &activations[ReLU], &activations[SiLU], &activations[Tanh]
	gelu.plain.add(AVX2, geluAVX2).add(AVX512, geluAVX512)
	gelu.deriv.add(AVX2, geluDerivAVX2).add(AVX512, geluDerivAVX512)
	gelu.gated.add(AVX2, geluGatedAVX2).add(AVX512, geluGatedAVX512)
	gelu.gatedGrad.add(AVX2, geluGatedGradAVX2).add(AVX512, geluGatedGradAVX512)
	geluTanh.plain.add(AVX2, geluTanhAVX2).add(AVX512, geluTanhAVX512)
	geluTanh.deriv.add(AVX2, geluTanhDerivAVX2).add(AVX512, geluTanhDerivAVX512)
	geluTanh.gated.add(AVX2, geluTanhGatedAVX2).add(AVX512, geluTanhGatedAVX512)
	geluTanh.gatedGrad.add(AVX2, geluTanhGatedGradAVX2).add(AVX512, geluTanhGatedGradAVX512)
	relu.plain.add(AVX2, reluAVX2).add(AVX512, reluAVX512)
	relu.deriv.add(AVX2, reluDerivAVX2).add(AVX512, reluDerivAVX512)
	relu.gated.add(AVX2, reluGatedAVX2).add(AVX512, reluGatedAVX512)
	relu.gatedGrad.add(AVX2, reluGatedGradAVX2).add(AVX512, reluGatedGradAVX512)
	silu.plain.add(AVX2, siluAVX2).add(AVX512, siluAVX512)
	silu.deriv.add(AVX2, siluDerivAVX2).add(AVX512, siluDerivAVX512)
	silu.gated.add(AVX2, siluGatedAVX2).add(AVX512, siluGatedAVX512)
	silu.gatedGrad.add(AVX2, siluGatedGradAVX2).add(AVX512, siluGatedGradAVX512)
	tanh.plain.add(AVX2, tanhAVX2).add(AVX512, tanhAVX512)
	tanh.deriv.add(AVX2, tanhDerivAVX2).add(AVX512, tanhDerivAVX512)
	tanh.gated.add(AVX2, tanhGatedAVX2).add(AVX512, tanhGatedAVX512)
	tanh.gatedGrad.add(AVX2, tanhGatedGradAVX2).add(AVX512, tanhGatedGradAVX512)
}
