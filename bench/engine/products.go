package main

import (
	"mlpfusion/model"
	"mlpfusion/task"
)

// stepFLOPs counts the multiplications and additions of a step's matrix products:
// the backward pass has two for each of the forward pass.
func stepFLOPs(m *model.Model, b *task.Batch) float64 { return 3 * forwardFLOPs(m, b) }

// forwardFLOPs counts those of the forward pass that has just run on a batch, of its
// real tokens and of no more than the head needs: of the last layer only the rows
// that the head reads go through attention's output and MLP, and where they are one
// a sequence, keys and values are never made (nn.Tape.AttendOne). What a causal query
// does not see, the scores that the backward pass computes again and the routers, a
// thousandth, are left out.
func forwardFLOPs(m *model.Model, b *task.Batch) float64 {
	switch {
	case m.Config.TwoStacks():
		return 2 * encoderDecoderProducts(m, b)
	case m.Config.Head == model.LanguageModel:
		return 2 * decoderProducts(m, b)
	}
	return 2 * encoderProducts(m, b)
}

// tokensAndPairs counts a batch's tokens, and the pairs of a query and a key, all or
// only those where the key is not the later one.
func tokensAndPairs(offsets []int32) (tokens, pairs, causal float64) {
	for i, from := range offsets[:len(offsets)-1] {
		n := float64(offsets[i+1] - from)
		tokens += n
		pairs += n * n
		causal += n * (n + 1) / 2
	}
	return tokens, pairs, causal
}

// mlpProducts are the multiply-adds of one token in a block whose matrices are not
// factored.
func mlpProducts(b *model.Block) float64 { return float64(b.Matrices() * b.Hidden * b.Width) }

// labelProducts are those of a label head for one sequence: a layer of the hidden
// size and one of the labels.
func labelProducts(c *model.Config) float64 { return float64(c.Hidden * (c.Hidden + len(c.Labels))) }

// encoderProducts counts the multiply-adds of a BERT-like classifier.
func encoderProducts(m *model.Model, b *task.Batch) float64 {
	h, heads := float64(m.Config.Hidden), float64(m.Config.Attention[0].Heads)
	tokens, pairs, _ := tokensAndPairs(b.Offsets)
	sequences := float64(len(b.Offsets) - 1)
	sum := sequences * labelProducts(m.Config)
	for i, block := range m.Blocks { // one a layer
		rows, scores := tokens, 2*pairs*h
		if i == len(m.Blocks)-1 {
			rows, scores = sequences, 2*tokens*heads*h
		}
		sum += rows*(4*h*h+mlpProducts(block)) + scores
	}
	return sum
}

// decoderProducts counts those of a GPT-2. Its last layer makes queries, keys and
// values of all tokens, and the rest of those with a target.
func decoderProducts(m *model.Model, b *task.Batch) float64 {
	h := float64(m.Config.Hidden)
	tokens, _, pairs := tokensAndPairs(b.Offsets)
	var targets, seen float64
	for i, from := range b.Offsets[:len(b.Offsets)-1] {
		for j, id := range b.Targets[from:b.Offsets[i+1]] {
			if id >= 0 {
				targets++
				seen += float64(j + 1)
			}
		}
	}
	sum := targets * h * float64(m.Config.Vocab)
	for i, block := range m.Blocks { // one a layer
		rows, scores := tokens, pairs
		if i == len(m.Blocks)-1 {
			rows, scores = targets, seen
		}
		sum += tokens*3*h*h + rows*(h*h+mlpProducts(block)) + 2*scores*h
	}
	return sum
}

// encoderDecoderProducts counts those of a T5 or Switch Transformer with a label
// head. T5's decoder reads the text again and goes on, after the last layer's
// self-attention, with a token a sequence; Switch's reads one from the start.
func encoderDecoderProducts(m *model.Model, b *task.Batch) float64 {
	c := m.Config
	h, heads, inner := float64(c.Hidden), float64(c.Attention[0].Heads), float64(c.Attention[0].Width())
	layers, decoderLayers := float64(c.Layers), float64(c.DecoderLayers)
	tokens, pairs, causal := tokensAndPairs(b.Offsets)
	sequences := float64(len(b.Offsets) - 1)
	one := sequences*4*h*inner + 2*tokens*heads*h // attention of one query a sequence to the encoder's output
	sum := sequences*labelProducts(c) + layers*(tokens*4*h*inner+2*pairs*inner)
	if c.Mixture.Experts > 0 {
		sum += decoderLayers * (sequences*(4*h*inner+2*inner) + one)
	} else {
		self := tokens*4*h*inner + 2*causal*inner
		cross := tokens*4*h*inner + 2*pairs*inner
		sum += decoderLayers*self + (decoderLayers-1)*cross + one
	}
	for _, block := range m.Blocks { // an MLP or an expert, and the rows that came to it
		sum += float64(block.MLP.X.Rows) * mlpProducts(block)
	}
	return sum
}
