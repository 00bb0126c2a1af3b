package generate

import (
	"fmt"
	"math"
)

// Options say how a text is written. The zero value of a field is off or, where
// it says so, a default.
type Options struct {
	MaxNewTokens int     // at most this many tokens, the stop token counted; no text gets longer than the model's positions
	MinNewTokens int     // no stop token before this many
	Stop         []int32 // tokens that end a text

	// Beams > 1 searches for the text of the highest probability, keeping so
	// many beginnings (beam search).
	Beams int
	// LengthPenalty is the power of the length by which a finished text's
	// log-probability is divided; transformers' default is 1.
	LengthPenalty float64
	EarlyStopping EarlyStopping

	// NoRepeatNGram forbids an n-gram of that many tokens to occur twice.
	NoRepeatNGram int
	// RepetitionPenalty divides the logits of tokens that the text or its prompt has, or
	// multiplies those below 0 (arXiv 1909.05858); in a beam search the log-probabilities.
	// 0 and 1: none.
	RepetitionPenalty float64
	// PromptMayRepeat lets the text repeat n-grams of the prompt, as LoRA's code
	// does, unlike transformers.
	PromptMayRepeat bool

	// Sample draws each token at random, from Seed and the prompt's number.
	Sample      bool
	Temperature float64 // divides the logits; 0: 1
	TopK        int     // only the K most probable tokens; 0: all
	TopP        float64 // only the most probable tokens that together have this probability; 0: all
	Seed        uint64

	// Batch is the number of sequences that are written at a time, each beam
	// being one; 0: 32.
	Batch int
}

// EarlyStopping says when a beam search ends, in transformers' words.
type EarlyStopping int

const (
	StopHeuristic EarlyStopping = iota // False: when the best beam, were it to end now, is worse than every finished text
	StopFull                           // True: when there are as many finished texts as beams
	StopNever                          // "never": when no beam can get better even at full length
)

// Check tells which options contradict each other or are out of range.
func (o *Options) Check() error {
	switch {
	case o.MaxNewTokens < 1:
		return fmt.Errorf("max-new-tokens: expected at least 1, found %d", o.MaxNewTokens)
	case o.MinNewTokens < 0 || o.MinNewTokens > o.MaxNewTokens:
		return fmt.Errorf("min-new-tokens: expected 0 to max-new-tokens, %d, found %d", o.MaxNewTokens, o.MinNewTokens)
	case !(o.RepetitionPenalty >= 0) || math.IsInf(o.RepetitionPenalty, 0):
		return fmt.Errorf("repetition-penalty: expected a number above 0, found %v", o.RepetitionPenalty)
	case o.Beams < 0:
		return fmt.Errorf("beam: expected at least 1, found %d", o.Beams)
	case o.NoRepeatNGram < 0:
		return fmt.Errorf("no-repeat-ngram: expected at least 0, found %d", o.NoRepeatNGram)
	case o.Batch < 0:
		return fmt.Errorf("batch: expected at least 0, found %d", o.Batch)
	case o.Beams > 1 && o.Sample:
		return fmt.Errorf("expected beam search or sampling, found both")
	case !(o.Temperature >= 0):
		return fmt.Errorf("temperature: expected more than 0, found %v", o.Temperature)
	case o.TopK < 0:
		return fmt.Errorf("top-k: expected at least 0, found %d", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1):
		return fmt.Errorf("top-p: expected between 0 and 1, found %v", o.TopP)
	case !o.Sample && (o.Temperature != 0 || o.TopK != 0 || o.TopP != 0):
		return fmt.Errorf("temperature, top-k and top-p: expected only when sampling")
	case o.LengthPenalty != o.LengthPenalty:
		return fmt.Errorf("length-penalty: expected a number, found %v", o.LengthPenalty)
	}
	return nil
}
