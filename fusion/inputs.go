package fusion

import (
	"context"
	"errors"
	"math"
	"slices"

	"mlpfusion/kernel"
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
// what the block is to give for it: the original block's output in the original
// model, and what the stream to which it is added has lost before it, so that the
// block also makes up for the earlier blocks' errors.
type PairInputs interface {
	Inputs
	EachPair(f func(x, want []float32, tokens int) error) error
}

// WeightedInputs are Inputs whose tokens do not count alike: choosing, refitting and
// fitting multiply a token's squared error by its weight, and so do the means that
// clustering by use takes. Only the ratios of weights mean something.
//
// Where the next layer begins by normalising the stream, an error counts by its share
// of the stream. In a decoder's first token that is a thousand times another's, and
// without weights the fit would be for that token alone.
type WeightedInputs interface {
	Inputs
	// Weights returns a number above 0 for each token in the order of Each, or nil
	// when all count alike.
	Weights() []float32
}

// RoutedInputs are Inputs of a mixture of experts: all the tokens that its router sees.
type RoutedInputs interface {
	Inputs
	// EachRouted is Each with what the router did: experts (tokens × k) are those that each
	// token goes to, −1 in place of one that has no place for it, and weights (tokens × k)
	// what their outputs are multiplied by. All are f's only until it returns.
	EachRouted(f func(x []float32, experts []int32, weights []float32, tokens int) error) error
}

// ErrNoTokens says that the calibration inputs hold no token, as those of an
// expert may.
var ErrNoTokens = errors.New("fusion: the calibration inputs are empty")

// sample is the number of tokens that a mean over tokens needs.
const sample = 4096

// errEnough ends a stream early.
var errEnough = errors.New("enough tokens")

// enough returns err unless it is errEnough.
func enough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// teacher streams calibration inputs together with the outputs that the original
// block gives for them. It keeps the outputs of the first tokens, up to
// teacherMemory values, since most steps of a calibration want them again.
type teacher struct {
	m      *MLP
	inputs Inputs
	pool   *kernel.Pool
	kept   []float32
	spare  []float32
	mixed  []float32 // of own outputs and wanted ones
	weight []float32 // of each token, 1 on average; nil: all count alike
}

const teacherMemory = 16 << 20

// teacher returns the one that the steps of a Compress share, or a new one.
func (o Options) teacher(m *MLP) *teacher {
	if o.taught != nil {
		return o.taught
	}
	t := &teacher{m: m, inputs: o.Inputs, pool: o.Pool}
	if in, ok := o.Inputs.(WeightedInputs); ok && in.Weights() != nil {
		t.weight = slices.Clone(in.Weights())
		var sum float64
		for _, w := range t.weight {
			sum += float64(w)
		}
		kernel.Scale(t.weight, float32(float64(len(t.weight))/sum))
	}
	return t
}

// paired tells whether the inputs come with what the block is to give.
func (t *teacher) paired() bool {
	_, ok := t.inputs.(PairInputs)
	return ok
}

// catchUp is the share of the earlier blocks' errors that a gated block is to make up
// for. All of it is more than the texts can teach: the block then learns their noise.
const catchUp = 0.5

// each streams the inputs x and, when outputs is set, what the block is to give
// for them, y, at most chunk tokens at a time so that memory does not grow with
// the caller's batches. w is the tokens' weights, nil when they count alike. All are
// f's only until it returns.
func (t *teacher) each(ctx context.Context, outputs bool, f func(x, y, w []float32, tokens int) error) error {
	p := t.m.Hidden
	seen := 0
	step := func(x, want []float32, tokens int) error {
		if len(x) < tokens*p || want != nil && len(want) < tokens*p {
			return errors.New("fusion: calibration inputs are shorter than tokens × hidden size")
		}
		for from := 0; from < tokens; from += chunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(chunk, tokens-from)
			part := x[from*p : (from+n)*p]
			var y, w []float32
			switch {
			case want != nil:
				y = want[from*p : (from+n)*p]
				if t.m.Gate != nil {
					t.mixed = append(t.mixed[:0], y...)
					y = t.mixed
					kernel.Scale(y, catchUp)
					kernel.Axpy(1-catchUp, t.outputs(part, seen, n), y)
				}
			case outputs:
				y = t.outputs(part, seen, n)
			}
			if t.weight != nil {
				if len(t.weight) < seen+n {
					return errors.New("fusion: calibration inputs have more tokens than weights")
				}
				w = t.weight[seen : seen+n]
			}
			if err := f(part, y, w, n); err != nil {
				return err
			}
			seen += n
		}
		return nil
	}
	var err error
	if pairs, ok := t.inputs.(PairInputs); ok && outputs {
		err = pairs.EachPair(step)
	} else {
		err = t.inputs.Each(func(x []float32, tokens int) error { return step(x, nil, tokens) })
	}
	if err == nil && seen == 0 {
		return ErrNoTokens
	}
	return err
}

// outputs returns the original's outputs for tokens at … at+n of the stream.
func (t *teacher) outputs(x []float32, at, n int) []float32 {
	p := t.m.Hidden
	if (at+n)*p <= len(t.kept) {
		return t.kept[at*p : (at+n)*p]
	}
	var y []float32
	if at*p == len(t.kept) && (at+n)*p <= teacherMemory {
		t.kept = append(t.kept, make([]float32, n*p)...)
		y = t.kept[at*p:]
	} else {
		if t.spare == nil {
			t.spare = make([]float32, chunk*p)
		}
		y = t.spare[:n*p]
	}
	t.m.Forward(t.pool, x, n, y)
	return y
}

// moments are means over the calibration tokens of each unit's activation, which is
// what the down projection reads, and of its square.
type moments struct{ mean, square []float64 }

func (m *MLP) activations(ctx context.Context, o Options) (*moments, error) {
	a := &moments{make([]float64, m.Width), make([]float64, m.Width)}
	h := make([]float32, chunk*m.Width)
	seen := 0
	err := o.teacher(m).each(ctx, false, func(x, _, _ []float32, tokens int) error {
		seen += tokens
		m.hidden(o.Pool, x, tokens, h, nil)
		addRows(a.mean, h, nil, tokens)
		addSquares(a.square, h, nil, tokens)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, sums := range [][]float64{a.mean, a.square} {
		for i := range sums {
			sums[i] /= float64(seen)
			if math.IsNaN(sums[i]) || math.IsInf(sums[i], 0) {
				return nil, errNotFinite
			}
		}
	}
	return a, nil
}
