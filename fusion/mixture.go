package fusion

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mlpfusion/kernel"
)

// Mixture is the experts of one mixture-of-experts layer.
//
// Most methods compress each expert on its own; those with the trait Mixtures look
// at all of them.
type Mixture struct {
	Experts []*MLP // of one shape
	// Router (len(Experts)×Hidden, row-major) and RouterBias, which may be nil, give the
	// logits; what follows from them is said by RoutedInputs.
	Router, RouterBias []float32
}

// FusedMixture is a compressed layer: fewer sets of weights than experts. The router
// stays as it is, so every expert still computes, with the weights it is given and P of
// its own where Scale has one; or, where experts are dropped, it loses their rows.
type FusedMixture struct {
	Blocks []*Block    // the sets of weights
	Of     []int       // expert e computes with Blocks[Of[e]]; −1: it is dropped
	Scale  [][]float32 // P_e of expert e, 0 where it has no unit in a cluster; nil: P of its block
}

// Expert returns expert e as a block of its own, nil if it is dropped. It shares memory
// with f.
func (f *FusedMixture) Expert(e int) *Block {
	if f.Of[e] < 0 {
		return nil
	}
	b := *f.Blocks[f.Of[e]]
	if f.Scale != nil {
		b.Scale = f.Scale[e]
	}
	return &b
}

// Params returns the number of trainable parameters: shared ones count once.
func (f *FusedMixture) Params() int {
	n := 0
	for _, b := range f.Blocks {
		n += b.Params()
	}
	return n
}

// FLOPs returns the operations of expert e's matrix products for one token.
// Units that it does not use count nothing.
func (f *FusedMixture) FLOPs(e int) int { return f.Expert(e).Compact().FLOPs() }

// Compact returns the block without the units whose factor in P is 0: the same
// function. A block that has none is returned as it is.
func (b *Block) Compact() *Block {
	if !slices.Contains(b.Scale, 0) {
		return b
	}
	var units []int
	for k, s := range b.Scale {
		if s != 0 {
			units = append(units, k)
		}
	}
	if len(units) == 0 {
		units = []int{0} // a block has one unit at least; its P is 0
	}
	pick := func(v []float32) (kept []float32) {
		if v == nil {
			return nil
		}
		for _, k := range units {
			kept = append(kept, v[k])
		}
		return kept
	}
	c := *b
	c.MLP = b.keep(units).MLP
	c.Scale, c.Step = pick(b.Scale), pick(b.Step)
	return &c
}

// check reports the first thing wrong with the experts.
func (m *Mixture) check() error {
	if len(m.Experts) == 0 {
		return errors.New("fusion: a mixture needs at least one expert")
	}
	first := m.Experts[0]
	for e, x := range m.Experts {
		if err := x.check(); err != nil {
			return fmt.Errorf("expert %d: %w", e, err)
		}
		if x.Hidden != first.Hidden || x.Width != first.Width || x.Act != first.Act || (x.Gate == nil) != (first.Gate == nil) ||
			(x.UpBias == nil) != (first.UpBias == nil) || (x.GateBias == nil) != (first.GateBias == nil) || (x.DownBias == nil) != (first.DownBias == nil) {
			return fmt.Errorf("fusion: expert %d: expected the shape of expert 0 (%d units of %d inputs, with the same matrices and biases), found %d of %d", e, first.Width, first.Hidden, x.Width, x.Hidden)
		}
	}
	return nil
}

// routed tells how the router treats the inputs.
type routed struct {
	tokens []int       // of each expert
	like   [][]float64 // like[a][b]: Σ over the tokens of the logits of a times those of b
	mean   [][]float64 // the mean output of each expert over all tokens; nil unless asked for
}

// eachRouted streams the inputs with what the router did with them, at most chunk tokens
// at a time; k is the number of experts that a token goes to.
func (m *Mixture) eachRouted(ctx context.Context, o Options, f func(x []float32, experts []int32, weights []float32, tokens, k int) error) error {
	in, ok := o.Inputs.(RoutedInputs)
	if !ok {
		return errors.New("fusion: compressing experts together needs inputs that tell what the router does with them")
	}
	p, seen := m.Experts[0].Hidden, 0
	err := in.EachRouted(func(x []float32, experts []int32, weights []float32, tokens int) error {
		if tokens == 0 {
			return nil
		}
		k := len(experts) / tokens
		if len(x) < tokens*p || k < 1 || len(experts) != tokens*k || len(weights) != tokens*k {
			return errors.New("fusion: routed inputs: expected hidden size values, experts and their weights for each token")
		}
		for _, e := range experts {
			if int(e) >= len(m.Experts) {
				return fmt.Errorf("fusion: routed inputs: expected an expert below %d, found %d", len(m.Experts), e)
			}
		}
		seen += tokens
		for from := 0; from < tokens; from += chunk {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(chunk, tokens-from)
			if err := f(x[from*p:(from+n)*p], experts[from*k:(from+n)*k], weights[from*k:(from+n)*k], n, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && seen == 0 {
		return ErrNoTokens
	}
	return err
}

// route streams the inputs through the router, and through every expert where
// outputs is set.
func (m *Mixture) route(ctx context.Context, o Options, outputs bool) (*routed, error) {
	n, p := len(m.Experts), m.Experts[0].Hidden
	if len(m.Router) != n*p {
		return nil, fmt.Errorf("fusion: the router: expected %d×%d values, found %d", n, p, len(m.Router))
	}
	if m.RouterBias != nil && len(m.RouterBias) != n {
		return nil, fmt.Errorf("fusion: the router's bias: expected %d values, found %d", n, len(m.RouterBias))
	}
	r := &routed{tokens: make([]int, n), like: make([][]float64, n), mean: make([][]float64, n)}
	for e := range n {
		r.like[e] = make([]float64, n)
		r.mean[e] = make([]float64, p)
	}
	logits, y := make([]float32, chunk*n), make([]float32, chunk*p)
	seen := 0
	err := m.eachRouted(ctx, o, func(x []float32, experts []int32, _ []float32, tokens, _ int) error {
		seen += tokens
		for _, e := range experts {
			if e >= 0 {
				r.tokens[e]++
			}
		}
		linear(o.Pool, m.Router, x, tokens, p, n, logits, kernel.Epilogue{Bias: m.RouterBias})
		for i := range tokens {
			row := logits[i*n : (i+1)*n]
			for a, v := range row {
				if !finite(v) {
					return errNotFinite
				}
				for b, w := range row[:a+1] {
					r.like[a][b] += float64(v) * float64(w)
				}
			}
		}
		if outputs {
			for e, expert := range m.Experts {
				expert.Forward(o.Pool, x, tokens, y)
				addRows(r.mean[e], y, nil, tokens)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for a := range n {
		for b := range a {
			r.like[b][a] = r.like[a][b]
		}
		for i := range r.mean[a] {
			r.mean[a][i] /= float64(seen)
		}
	}
	return r, nil
}
