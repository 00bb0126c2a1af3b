package fusion

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"mlpfusion/kmeans"
)

// Cost is what a budget counts.
type Cost int

const (
	FLOPs  Cost = iota // of one token's matrix products
	Params             // trainable parameters
	Bytes              // of the parameters at four bytes each
)

// At returns what a dense block of width c with m's tensors costs, P not
// counted.
func (k Cost) At(m *MLP, c int) int {
	list, d := m.parts()
	if k == FLOPs {
		matrices := 0
		for _, t := range list {
			if !t.bias {
				matrices++
			}
		}
		return 2 * matrices * m.Hidden * c
	}
	n := c*d + len(m.DownBias)
	if k == Bytes {
		n *= 4
	}
	return n
}

// Curve is what one block offers a budget: at width Widths[i] it costs Costs[i]
// and leaves the error Errors[i]. Errors of different blocks must be on one
// scale; their sum is made small.
type Curve struct {
	Widths []int
	Costs  []int
	Errors []float64
}

// Curve returns the curve of m at the given widths, with costs in units of k.
// With o.Inputs the errors are what calibrated's units leave of the squared
// output after the refit, as a share of it: the greedy choice gives every width
// at once. Without, they are the share of the sub-MLPs' inertia that Ward's
// clustering leaves, again for every width from one tree.
func (m *MLP) Curve(ctx context.Context, k Cost, widths []int, o Options) (Curve, error) {
	c := Curve{Widths: slices.Clone(widths), Costs: make([]int, len(widths)), Errors: make([]float64, len(widths))}
	if err := m.check(); err != nil {
		return c, err
	}
	if o.Pool == nil {
		return c, errors.New("fusion: Options.Pool is missing")
	}
	most := 0
	for i, w := range widths {
		if w < 1 || w > m.Width {
			return c, fmt.Errorf("fusion: width %d: expected 1 to %d, the block's own width", w, m.Width)
		}
		c.Costs[i] = k.At(m, w)
		most = max(most, w)
	}
	if most == 0 {
		return c, errors.New("fusion: a curve needs at least one width")
	}
	var left func(width int) float64
	if o.Inputs != nil {
		o.Width = most
		_, unexplained, err := pick(ctx, m, o)
		if err != nil {
			return c, err
		}
		left = func(width int) float64 { return unexplained[width] / unexplained[0] }
	} else {
		x, d := m.SubMLPs()
		tree, err := kmeans.Ward(x, m.Width, d, o.Pool)
		if err != nil {
			return c, err
		}
		left = func(width int) float64 { return tree.Inertia(width) / tree.Inertia(1) }
	}
	for i, w := range widths {
		if e := left(w); e > 0 { // not when nothing varies at all
			c.Errors[i] = e
		}
	}
	return c, nil
}

// Weigh returns the curve of a block that only a share of the tokens passes, as
// an expert of a mixture does: its errors count by that share, and so do FLOPs,
// which are then those expected of a token.
func (c Curve) Weigh(share float64, k Cost) Curve {
	w := Curve{Widths: c.Widths, Costs: slices.Clone(c.Costs), Errors: slices.Clone(c.Errors)}
	for i := range w.Widths {
		w.Errors[i] *= share
		if k == FLOPs {
			w.Costs[i] = int(math.Round(share * float64(c.Costs[i])))
		}
	}
	return w
}

// Plus returns the curve of two blocks that are to have one width, from curves at the
// same widths.
func (c Curve) Plus(d Curve) Curve {
	sum := Curve{Widths: c.Widths, Costs: slices.Clone(c.Costs), Errors: slices.Clone(c.Errors)}
	for i := range sum.Widths {
		sum.Costs[i] += d.Costs[i]
		sum.Errors[i] += d.Errors[i]
	}
	return sum
}

// Allocate chooses one point of every curve so that the costs sum to at most
// budget and the errors to as little as possible, and returns their indices.
// The answer is exact (and so never worse for a larger budget) as long as the
// frontier of cost and error stays under a million points, as it does when
// widths come in steps; beyond, the frontier is thinned evenly by cost, and the
// budget still holds. Of equal answers it gives the cheaper, then the one with
// the earlier choices. It is an error when even the cheapest points cost more
// than the budget.
func Allocate(curves []Curve, budget int) ([]int, error) {
	// What the curves after i cost at least.
	rest := make([]int, len(curves)+1)
	for i := len(curves) - 1; i >= 0; i-- {
		c := curves[i]
		if len(c.Widths) == 0 || len(c.Costs) != len(c.Widths) || len(c.Errors) != len(c.Widths) {
			return nil, fmt.Errorf("fusion: curve %d: expected as many costs and errors as widths, at least one, found %d, %d and %d", i, len(c.Costs), len(c.Errors), len(c.Widths))
		}
		for j, e := range c.Errors {
			if c.Costs[j] < 0 || math.IsNaN(e) {
				return nil, fmt.Errorf("fusion: curve %d: expected costs of at least 0 and errors that are numbers, found %d and %v", i, c.Costs[j], e)
			}
		}
		rest[i] = rest[i+1] + slices.Min(c.Costs)
	}
	if cheapest := rest[0]; cheapest > budget {
		return nil, fmt.Errorf("fusion: budget: expected at least the %d that the smallest widths cost, found %d", cheapest, budget)
	}

	frontier := []state{{}}
	chosen := make([][]state, len(curves))
	for i, c := range curves {
		next := make([]state, 0, len(frontier)*len(c.Costs))
		for from, s := range frontier {
			for j, cost := range c.Costs {
				if total := s.cost + cost; total+rest[i+1] <= budget {
					next = append(next, state{total, s.err + c.Errors[j], int32(from), int32(j)})
				}
			}
		}
		frontier = thin(undominated(next))
		chosen[i] = frontier
	}
	answer := make([]int, len(curves))
	at := len(frontier) - 1 // rising cost, falling error: the last is the best
	for i := len(curves) - 1; i >= 0; i-- {
		s := chosen[i][at]
		answer[i] = int(s.choice)
		at = int(s.from)
	}
	return answer, nil
}

// state is a choice for the curves so far: which point of the last one, and
// which state before it.
type state struct {
	cost         int
	err          float64
	from, choice int32
}

// undominated keeps the states that no cheaper one equals or beats, by rising
// cost.
func undominated(s []state) []state {
	slices.SortFunc(s, func(a, b state) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.err, b.err), cmp.Compare(a.from, b.from), cmp.Compare(a.choice, b.choice))
	})
	kept := s[:0]
	for _, v := range s {
		if len(kept) == 0 || v.err < kept[len(kept)-1].err {
			kept = append(kept, v)
		}
	}
	return slices.Clip(kept)
}

// thin keeps at most a million states: the cheapest, the dearest, and between
// them the best of each of as many equal spans of cost.
func thin(s []state) []state {
	const most = 1 << 20
	if len(s) <= most {
		return s
	}
	low, span := s[0].cost, s[len(s)-1].cost-s[0].cost+1
	kept := s[:1:1]
	for i := 1; i < len(s); i++ {
		slot := func(v state) int { return int(float64(v.cost-low) / float64(span) * (most - 1)) }
		if i == len(s)-1 || slot(s[i]) != slot(s[i+1]) {
			kept = append(kept, s[i])
		}
	}
	return kept
}
