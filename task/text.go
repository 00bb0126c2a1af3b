package task

import (
	"fmt"
	"math"
	"slices"

	"mlpfusion/tokenize"
)

// Names of a language model's metrics, of which less is better: the mean over
// target tokens of −log p, and e to that power.
const (
	Loss       = "loss"
	Perplexity = "perplexity"
)

// LowerIsBetter tells whether less of a metric is better.
func LowerIsBetter(metric string) bool {
	return metric == Loss || metric == Perplexity || metric == Distance
}

// ScoreText computes a language model's metrics from the log-likelihood of so
// many target tokens. No tokens, and a likelihood that is not a number, are
// errors.
func ScoreText(spec Spec, likelihood float64, targets int) ([]Metric, error) {
	if targets == 0 {
		return nil, fmt.Errorf("score of %s: expected at least one token to predict, found none", spec.Name)
	}
	loss := -likelihood / float64(targets)
	perplexity := math.Exp(loss)
	if math.IsNaN(perplexity) || math.IsInf(perplexity, 0) {
		return nil, fmt.Errorf("score of %s: expected a finite perplexity, found a loss of %g", spec.Name, loss)
	}
	return []Metric{{Perplexity, perplexity}, {Loss, loss}}, nil
}

// TextFormat says how a language model reads prompts and texts.
type TextFormat struct {
	// End is the token that ends a text. A model without an encoder also reads
	// it between prompt and text, and before a text without a prompt.
	End int32
	// Length is the largest number of tokens of a sequence.
	Length int
	// Encoder tells that the prompt goes through an encoder. The decoder then
	// reads Start and the text.
	Encoder bool
	Start   int32
	Vocab   int // the model's rows
}

// Prompt returns the tokens after which a model writes its text. Of a prompt
// that leaves no room for a text the beginning is cut off.
func (f TextFormat) Prompt(tok tokenize.Tokenizer, text string) []int32 {
	if f.Encoder {
		return tok.Encode(text, nil, f.Length).IDs
	}
	ids := tok.Encode(text, nil, 0).IDs
	if text == "" {
		ids = nil
	}
	if n := len(ids) + 2 - f.Length; n > 0 {
		ids = ids[min(n, len(ids)):]
	}
	return append(ids, f.End)
}

// target returns the tokens that a decoder behind an encoder is to predict.
func (f TextFormat) target(tok tokenize.Tokenizer, text string) []int32 {
	ids := tok.Encode(text, nil, f.Length).IDs
	if n := len(ids); n == 0 || ids[n-1] != f.End {
		ids = append(ids[:min(n, f.Length-1)], f.End)
	}
	return ids
}

// EncodeText tokenizes the texts of a language-modelling task: of each example
// its prompt and its target, with the end token after both. All tokens of the
// target and its end are to be predicted, none of the prompt. What does not fit
// into a sequence is cut off; a target without a prompt instead goes on in
// further sequences, so that each of its tokens is predicted once. The last token
// is predicted and not read.
//
// progress and the error are as Encode's.
func EncodeText(tok tokenize.Tokenizer, examples []Example, f TextFormat, progress func(done, total int)) (*Encoded, error) {
	return encode(examples, f.Vocab, progress, func(e *Example, to *Encoded) error {
		prompt, target := f.Prompt(tok, e.Text), e.Target
		if f.Encoder {
			to.IDs, to.Targets = append(to.IDs, prompt...), append(to.Targets, f.target(tok, target)...)
			to.DecoderIDs = append(append(to.DecoderIDs, f.Start), to.Targets[len(to.DecoderIDs):len(to.Targets)-1]...)
			to.Offsets, to.DecoderOffsets = append(to.Offsets, len(to.IDs)), append(to.DecoderOffsets, len(to.DecoderIDs))
			return nil
		}
		if e.Text != "" {
			target = " " + target // words within a text begin with a space
		}
		ids := append(prompt, tok.Encode(target, nil, 0).IDs...)
		ids = append(ids, f.End)
		for from := 0; from+1 < len(ids); from += f.Length {
			end := min(len(ids)-1, from+f.Length)
			to.IDs = append(to.IDs, ids[from:end]...)
			to.Targets = append(to.Targets, ids[from+1:end+1]...)
			if from == 0 {
				skipped := to.Targets[len(to.Targets)-(end-from):][:len(prompt)-1]
				for i := range skipped {
					skipped[i] = -1
				}
			}
			to.Offsets = append(to.Offsets, len(to.IDs))
			if e.Text != "" {
				return nil
			}
		}
		return nil
	})
}

// EncodeWritten tokenizes the examples of a task whose labels are written as
// words, for an encoder–decoder. Labels are told apart by the first tokens of
// their words: it reports two that begin alike.
func EncodeWritten(tok tokenize.Tokenizer, spec Spec, examples []Example, f TextFormat, progress func(done, total int)) (*Encoded, error) {
	var words []int32
	for i, label := range spec.Labels {
		word := f.target(tok, label)[0]
		if at := slices.Index(words, word); at >= 0 {
			return nil, fmt.Errorf("text-to-text: expected labels that begin with different tokens, found %q and %q", spec.Labels[at], spec.Labels[i])
		}
		words = append(words, word)
	}
	written := make([]Example, len(examples))
	labels := make([]float32, len(examples))
	for i := range examples {
		written[i] = Example{Text: spec.Prompt(&examples[i]), Target: spec.Labels[int(examples[i].Label)], Place: examples[i].Place}
		labels[i] = examples[i].Label
	}
	e, err := EncodeText(tok, written, f, progress)
	if err != nil {
		return nil, err
	}
	e.Labels, e.LabelWords = labels, words
	return e, nil
}
