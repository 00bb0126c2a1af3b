package convert

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/model"
)

// Plan says which blocks are compressed, and to which width.
type Plan struct {
	// Layers are the layers' numbers from 0: "2-5", "0,3,7-9"; "all", which ""
	// is too; or "paper", the paper's last two thirds, in a model with mixtures of
	// experts of the layers that have them. In a model with an encoder and a
	// decoder the choice holds for both.
	Layers string
	// Width is the number of hidden units c to keep; or Ratio their share of
	// those there are, which model.Block.Units rounds. With neither it is a quarter,
	// the paper's.
	Width int
	Ratio float64
	// Together is for mixtures whose experts share their units: only those are
	// chosen, and the width goes up to the units of all of a mixture's experts.
	Together bool
}

// Choose returns the blocks of the plan and the width of each, by its place in
// blocks.
func (p Plan) Choose(blocks []*model.Block) (widths map[int]int, err error) {
	wanted, err := p.chosen(blocks)
	if err != nil {
		return nil, err
	}
	if p.Width != 0 && p.Ratio != 0 {
		return nil, fmt.Errorf("expected a width or a ratio, found both: %d and %g", p.Width, p.Ratio)
	}
	widths = map[int]int{}
	for i, b := range blocks {
		if !wanted[b] || p.Together && b.Experts == 0 {
			continue
		}
		if b.Form.Rank > 0 || b.Form.ClusterSizes || b.Form.Masked || b.Form.Weights != "" {
			return nil, fmt.Errorf("%s: expected a block that is not compressed yet; start from the original or export first", b.Name)
		}
		w, most := p.Width*max(1, b.WidthTimes), b.Width
		if p.Together {
			most *= b.Experts
		}
		if w == 0 {
			ratio := p.Ratio
			if ratio == 0 {
				ratio = 0.25
			}
			if !(ratio > 0 && ratio <= float64(most)/float64(b.Width)) {
				return nil, fmt.Errorf("ratio: expected a number above 0 and at most %d, found %g", most/b.Width, ratio)
			}
			w = b.Units(ratio)
		}
		if w < 1 || w > most {
			return nil, fmt.Errorf("width: expected 1 to the %d units of %s, found %d", most, b.Name, w)
		}
		widths[i] = w
	}
	return widths, nil
}

// chosen reads the layers' list.
func (p Plan) chosen(blocks []*model.Block) (map[*model.Block]bool, error) {
	if p.Layers == "paper" {
		return lastTwoThirds(blocks), nil
	}
	n := 0
	for _, b := range blocks {
		n = max(n, b.Layer+1)
	}
	layers := make([]bool, n)
	for _, part := range strings.Split(p.Layers, ",") {
		first, last, span := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && span {
			to, err = strconv.Atoi(last)
		}
		if p.Layers == "all" || p.Layers == "" {
			from, to, err = 0, n-1, nil
		}
		if err != nil || from < 0 || to < from || to >= n {
			return nil, fmt.Errorf("layers: expected numbers or ranges within 0-%d, such as %d-%d, all or paper, found %q", n-1, n/3, n-1, part)
		}
		for l := from; l <= to; l++ {
			layers[l] = true
		}
	}
	wanted := map[*model.Block]bool{}
	for _, b := range blocks {
		if layers[b.Layer] {
			wanted[b] = true
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("layers: expected layers with an MLP, found %q", p.Layers)
	}
	return wanted, nil
}

// lastTwoThirds returns the blocks of the last two thirds of each stack's layers;
// where some layers have experts, of those layers alone.
func lastTwoThirds(blocks []*model.Block) map[*model.Block]bool {
	experts := slices.ContainsFunc(blocks, func(b *model.Block) bool { return b.Experts > 0 })
	candidate := func(b *model.Block) bool { return !experts || b.Experts > 0 || b.Shared }
	layers := map[string][]int{} // by stack, in order of depth
	for _, b := range blocks {
		if l := layers[b.Stack]; candidate(b) && !slices.Contains(l, b.Layer) {
			layers[b.Stack] = append(l, b.Layer)
		}
	}
	wanted := map[*model.Block]bool{}
	for _, b := range blocks {
		l := layers[b.Stack]
		if candidate(b) && slices.Contains(l[len(l)/3:], b.Layer) {
			wanted[b] = true
		}
	}
	return wanted
}
