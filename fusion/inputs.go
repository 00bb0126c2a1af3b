package fusion

import (
	"context"
	"errors"
)

// Inputs are calibration data: the inputs of one MLP on example texts, without
// labels. They are streamed, so that any number of texts can be used, and read
// several times.
type Inputs interface {
	// Each calls f with the MLP's inputs, tokens×hidden at a time. x is f's only
	// until it returns.
	Each(f func(x []float32, tokens int) error) error
}

// PairInputs are Inputs of a block that sits behind blocks already compressed.
// Each then gives what the compressed model feeds it, and EachPair beside that
// what the original model feeds the original block on the same tokens, so that
// a refit also makes up for the earlier blocks' errors.
type PairInputs interface {
	Inputs
	EachPair(f func(x, original []float32, tokens int) error) error
}

// eachPair streams both sides; they are the same unless o.Inputs has pairs.
func eachPair(ctx context.Context, in Inputs, hidden int, f func(x, original []float32, tokens int) error) error {
	seen := 0
	step := func(x, original []float32, tokens int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(x) < tokens*hidden || len(original) < tokens*hidden {
			return errors.New("fusion: calibration inputs are shorter than tokens × hidden size")
		}
		// In chunks, so that memory does not grow with the caller's batches.
		for t := 0; t < tokens; t += chunk {
			n := min(chunk, tokens-t)
			if err := f(x[t*hidden:(t+n)*hidden], original[t*hidden:(t+n)*hidden], n); err != nil {
				return err
			}
			seen += n
		}
		return nil
	}
	var err error
	if pairs, ok := in.(PairInputs); ok {
		err = pairs.EachPair(step)
	} else {
		err = in.Each(func(x []float32, tokens int) error { return step(x, x, tokens) })
	}
	if err == nil && seen == 0 {
		return errors.New("fusion: the calibration inputs are empty")
	}
	return err
}
