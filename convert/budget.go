package convert

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
)

// steps returns the widths that a budget chooses from: multiples of a 32nd of a
// block and, so that little can be divided too, up to twice the budget's own share
// of it those of an eighth of that.
func steps(width int, budget float64) []int {
	var widths []int
	for s := 1.0; s <= 16; s++ {
		widths = append(widths, int(s/8*budget*float64(width)))
	}
	for s := 1; s <= 32; s++ {
		widths = append(widths, s*width/32)
	}
	slices.Sort(widths)
	widths = slices.Compact(widths)
	return slices.DeleteFunc(widths, func(w int) bool { return w < 1 || w > width })
}

// allocate chooses the widths of the chosen blocks under the budget, from the
// blocks' error curves. The experts of a mixture have one width, as loaders that stack
// them need, unless the budget is to follow their usage. Blocks that keep their width are
// left alone.
func (f *fuser) allocate(ctx context.Context) error {
	if f.opt.Width != 0 || f.opt.Ratio != 0 {
		return fmt.Errorf("expected a budget, a width or a ratio, found more than one of them")
	}
	if !(f.opt.Budget > 0 && f.opt.Budget <= 1) {
		return fmt.Errorf("budget: expected a number above 0 and at most 1, found %g", f.opt.Budget)
	}
	curves, err := f.curves(ctx, func(width int) []int { return steps(width, f.opt.Budget) }, nil)
	if err != nil {
		return err
	}
	total := 0
	for _, c := range curves {
		total += c.Costs[len(c.Costs)-1] // the full width's
	}
	var together []fusion.Curve
	of := make([]int, len(curves)) // which of those
	for i, place := range f.chosen {
		b := f.blocks[place]
		if i > 0 && b.Expert > 0 && f.opt.Usage == nil && f.blocks[f.chosen[i-1]].Expert == b.Expert-1 {
			of[i] = len(together) - 1
			together[of[i]] = together[of[i]].Plus(curves[i])
		} else {
			of[i] = len(together)
			together = append(together, curves[i])
		}
	}
	points, err := fusion.Allocate(together, int(f.opt.Budget*float64(total)))
	if err != nil {
		return err
	}
	var chosen []int
	for i, place := range f.chosen {
		if w := curves[i].Widths[points[of[i]]]; w < f.blocks[place].Width {
			f.widths[place] = w
			chosen = append(chosen, place)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("budget %g: every block keeps its width, so there is nothing to compress", f.opt.Budget)
	}
	f.chosen = chosen
	return nil
}

// curves are the error curves of the chosen blocks at the widths asked for. progress,
// which may be nil, is told the blocks done.
func (f *fuser) curves(ctx context.Context, widths func(width int) []int, progress func(done, total int)) ([]fusion.Curve, error) {
	pool := kernel.NewPool(f.opt.Threads)
	defer pool.Close()
	opt := f.opt.Fusion
	opt.Pool = pool
	curves := make([]fusion.Curve, len(f.chosen))
	share := f.shares()
	for i, place := range f.chosen {
		m, err := f.read(place)
		if err != nil {
			return nil, err
		}
		if f.opt.Calibration != nil {
			if opt.Inputs, err = f.opt.Calibration.Inputs(place); err != nil {
				return nil, err
			}
		}
		curves[i], err = m.Curve(ctx, f.opt.BudgetOf, widths(m.Width), opt)
		if errors.Is(err, fusion.ErrNoTokens) {
			plain := opt
			plain.Inputs = nil
			curves[i], err = m.Curve(ctx, f.opt.BudgetOf, widths(m.Width), plain)
		}
		if err != nil {
			return nil, err
		}
		curves[i] = curves[i].Weigh(share(place), f.opt.BudgetOf)
		if progress != nil {
			progress(i+1, len(f.chosen))
		}
	}
	if f.opt.Calibration != nil {
		f.opt.Calibration.Rewind()
	}
	return curves, nil
}

// Curves returns, for each block that opt chooses in the model in src, the error that
// compressing it to each of the widths leaves, see fusion.MLP.Curve. progress, which
// may be nil, is told the blocks done.
func Curves(ctx context.Context, src *checkpoint.Dir, opt FuseOptions, widths []int, progress func(done, total int)) ([]fusion.Curve, error) {
	f := &fuser{src: src, opt: opt}
	if err := f.prepare(); err != nil {
		return nil, err
	}
	return f.curves(ctx, func(int) []int { return widths }, progress)
}

// shares returns what share of a layer's tokens a block sees: all of them, or of
// an expert what Usage says, or without it an even part. One token more for each
// expert lets none of them vanish for want of a few texts.
func (f *fuser) shares() func(place int) float64 {
	return func(place int) float64 {
		b := f.blocks[place]
		if b.Experts == 0 || b.Mixture >= len(f.opt.Usage) {
			return b.Share()
		}
		seen := f.opt.Usage[b.Mixture].Tokens
		all := int64(b.Experts)
		for _, n := range seen {
			all += n
		}
		return float64(b.TopK) * float64(seen[b.Expert]+1) / float64(all)
	}
}
