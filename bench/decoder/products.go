package main

import "mlpfusion/model"

// forwardFLOPs counts the multiplications and additions of the matrix products of a
// forward pass that predicts every token of the texts but their first. The last token
// of a text is not read.
func forwardFLOPs(m *model.Model, texts [][]int32) float64 {
	var tokens, pairs float64
	for _, t := range texts {
		n := float64(len(t) - 1)
		tokens, pairs = tokens+n, pairs+n*(n+1)/2
	}
	return 2 * (tokens*(perToken(m)+head(m)) + pairs*perPair(m))
}

// promptFLOPs counts those of reading the texts and predicting one token after each:
// of the last layer that token's row goes through attention and MLP.
func promptFLOPs(m *model.Model, texts [][]int32) float64 {
	var tokens, pairs float64
	for _, t := range texts {
		n := float64(len(t))
		tokens, pairs = tokens+n, pairs+n*(n+1)/2
	}
	layers := float64(m.Config.Layers)
	return 2 * (tokens*perToken(m)*(layers-1)/layers + float64(len(texts))*head(m) + pairs*perPair(m)*(layers-1)/layers)
}

// perToken are the multiply-adds of a token in all layers, but for attention's scores
// and sums, perPair those of a query and a key that it sees, head those of a row of
// logits.
func perToken(m *model.Model) (sum float64) {
	h := m.Config.Hidden
	for i, b := range m.Blocks { // one a layer
		a := m.Config.Attention[i]
		sum += float64(2*h*(a.Width()+a.KVWidth()) + b.Matrices()*b.Hidden*b.Width)
	}
	return sum
}

func perPair(m *model.Model) (sum float64) {
	for _, a := range m.Config.Attention {
		sum += float64(2 * a.Width())
	}
	return sum
}

func head(m *model.Model) float64 { return float64(m.Config.Hidden * m.Config.Vocab) }
