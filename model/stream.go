package model

import (
	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// NormsFirst tells that a layer normalises the stream before its MLP reads it, so that an
// error of the stream counts by its share of it.
func (a *Arch) NormsFirst() bool { return a.seq2seq != nil || a.names.mlpNorms.before != "" }

// AppendStreamWeights adds to weights those of the tokens of a stream, or of an MLP's
// outputs, that a norm is to read: one through the mean square of a token's values, by which
// the norm divides the square of an error. In a decoder the first token's stream is a
// thousand times another's, and sums of errors that do not weigh are sums over that token.
func AppendStreamWeights(weights []float32, stream *nn.Tensor) []float32 {
	for r := range stream.Rows {
		square := kernel.SumSquares(stream.Data[r*stream.Cols : (r+1)*stream.Cols])
		weights = append(weights, float32(float64(stream.Cols)/max(square, 1e-12)))
	}
	return weights
}
