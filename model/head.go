package model

import (
	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// head computes a model's logits from its last states.
type head struct {
	cfg   *Config
	dense *nn.Linear // of a head for labels that has one
	out   *nn.Linear // the vocabulary's, or the classifier
}

// taskHead states the head; words are the embeddings that a language model's may be
// tied to.
func (b *builder) taskHead(words *nn.Weight) {
	c, h := b.cfg, &head{cfg: b.cfg}
	k := c.classifier
	b.head = true
	switch {
	case c.Head != LanguageModel:
		if k.dense != "" {
			h.dense = b.linear(c.Hidden, c.Hidden, true, Normal, k.dense)
		}
		h.out = b.linear(c.Hidden, max(1, len(c.Labels)), k.outBias, Normal, k.out)
	case c.Tied:
		h.out = &nn.Linear{W: words}
		words.Touched = nil // every row's gradient is written
	default:
		h.out = b.linear(c.Hidden, c.Vocab, false, Normal, c.names.head)
	}
	b.out = h
}

// logits returns the head's output for rows of the last state: (rows × labels), or
// (rows × vocabulary).
func (h *head) logits(t *nn.Tape, x *nn.Tensor) *nn.Tensor {
	c := h.cfg
	if h.dense != nil {
		if c.classifier.dropFirst {
			x = t.Dropout(x, c.HeadDrop)
		}
		x = t.Dropout(t.Linear(x, h.dense, c.classifier.act, nil), c.HeadDrop)
	}
	y := t.Linear(x, h.out, kernel.Identity, nil)
	if c.Head != LanguageModel {
		return y
	}
	if c.LogitScale != 1 {
		kernel.Scale(y.Data, c.LogitScale)
	}
	if c.LogitCap != 0 {
		t.Softcap(y, c.LogitCap)
	}
	return y
}

// rowsRead returns the rows of the packed sequences whose last states the head
// reads, appended to rows: each sequence's first or last.
func (c *Config) rowsRead(rows, ids, offsets []int32) []int32 {
	for i := range len(offsets) - 1 {
		row := offsets[i]
		if c.Head == LanguageModel || c.classifier.lastToken {
			row = offsets[i+1] - 1
		}
		if c.Head != LanguageModel && c.classifier.skipPad {
			for row > offsets[i] && int(ids[row]) == c.PadID {
				row--
			}
		}
		rows = append(rows, row)
	}
	return rows
}
