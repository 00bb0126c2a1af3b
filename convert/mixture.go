package convert

import (
	"context"
	"fmt"

	"mlpfusion/fusion"
	"mlpfusion/kernel"
)

// lookup finds the method and what it makes of the options.
func (f *fuser) lookup() error {
	var err error
	if f.method, err = fusion.Lookup(f.opt.Method); err != nil {
		return err
	}
	if err := f.method.Check(f.opt.Fusion); err != nil {
		return fmt.Errorf("method %s: %w", f.opt.Method, err)
	}
	if f.method.Mixtures && f.opt.Budget != 0 {
		return fmt.Errorf("method %s: expected a width or a ratio, found a budget", f.opt.Method)
	}
	if f.method.UsesTexts(f.opt.Fusion) && f.opt.Calibration == nil {
		return fmt.Errorf("method %s: expected calibration texts, found none", f.opt.Method)
	}
	if f.method.Merges && f.opt.Width == 0 && f.opt.Ratio == 0 {
		f.opt.Ratio = 1 // merged experts keep their width
	}
	f.opt.Together = f.method.Mixtures && !f.method.Merges
	return nil
}

// groups returns the places of the blocks that are compressed together: each
// alone, or the experts of each mixture.
func (f *fuser) groups() [][]int {
	var groups [][]int
	for i, place := range f.chosen {
		if f.method.Mixtures && i > 0 && f.blocks[f.chosen[i-1]].Mixture == f.blocks[place].Mixture {
			last := len(groups) - 1
			groups[last] = append(groups[last], place)
		} else {
			groups = append(groups, []int{place})
		}
	}
	return groups
}

// makeMixture reads a mixture's weights and compresses them.
func (f *fuser) makeMixture(ctx context.Context, pool *kernel.Pool, group []int) ([]compressed, error) {
	first := f.blocks[group[0]]
	if len(group) != first.Experts {
		return nil, fmt.Errorf("%s: %s: expected %d experts, found %d", f.src.Path, first.Router, first.Experts, len(group))
	}
	m := &fusion.Mixture{}
	for _, place := range group {
		expert, err := f.read(place)
		if err != nil {
			return nil, err
		}
		m.Experts = append(m.Experts, expert)
	}
	var err error
	if m.Router, err = f.values(first.Router); err != nil {
		return nil, err
	}
	if first.RouterBias != "" {
		if m.RouterBias, err = f.values(first.RouterBias); err != nil {
			return nil, err
		}
	}
	opt := f.opt.Fusion
	opt.Width, opt.Pool = f.widths[group[0]], pool
	if f.method.Merges {
		opt.Experts = f.keptExperts(len(group))
	}
	if f.opt.Calibration != nil {
		if opt.Inputs, err = f.opt.Calibration.Mixture(group[0]); err != nil {
			return nil, err
		}
	}
	fused, err := f.method.CompressMixture(ctx, m, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", f.src.Path, first.Router, err)
	}
	all := make([]compressed, len(group)) // of one that is dropped, nothing
	owner := map[int]string{}             // of each set of weights, its first expert
	for e, place := range group {
		b := f.blocks[place]
		block := fused.Expert(e)
		if block == nil {
			continue
		}
		info := f.info(b, block)
		if name, ok := owner[fused.Of[e]]; ok {
			// What is said of the clustering is said once.
			info.Weights, info.Inertia, info.Total, info.Silhouette = name, 0, 0, 0
		} else {
			owner[fused.Of[e]] = b.Name
		}
		all[e] = compressed{info, block}
	}
	return all, nil
}
