package convert

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"mlpfusion/model"
)

// Plan says which blocks are compressed, and to which width.
type Plan struct {
	// Layers are the layers' numbers from 0: "2-5", "0,3,7-9", "all"; "" is
	// the paper's last two thirds.
	Layers string
	// Width is the number of hidden units c to keep; or Ratio their share of
	// those there are. With neither it is a quarter, the paper's.
	Width int
	Ratio float64
}

// Choose returns the blocks of the plan and the width of each, by its place in
// blocks.
func (p Plan) Choose(blocks []*model.Block) (widths map[int]int, err error) {
	wanted, err := p.layers(blocks)
	if err != nil {
		return nil, err
	}
	if p.Width != 0 && p.Ratio != 0 {
		return nil, fmt.Errorf("expected a width or a ratio, found both: %d and %g", p.Width, p.Ratio)
	}
	widths = map[int]int{}
	for i, b := range blocks {
		if !wanted[b.Layer] {
			continue
		}
		if b.Form.Rank > 0 || b.Form.Scale || b.Form.Masked {
			return nil, fmt.Errorf("%s: expected a block that is not compressed yet; start from the original or export first", b.Name)
		}
		w := p.Width
		if w == 0 {
			ratio := p.Ratio
			if ratio == 0 {
				ratio = 0.25
			}
			if !(ratio > 0 && ratio <= 1) {
				return nil, fmt.Errorf("ratio: expected a number above 0 and at most 1, found %g", ratio)
			}
			w = max(1, int(math.Round(ratio*float64(b.Width))))
		}
		if w < 1 || w > b.Width {
			return nil, fmt.Errorf("width: expected 1 to the %d units of %s, found %d", b.Width, b.Name, w)
		}
		widths[i] = w
	}
	return widths, nil
}

// layers reads the layers' list.
func (p Plan) layers(blocks []*model.Block) (map[int]bool, error) {
	n := 0
	for _, b := range blocks {
		n = max(n, b.Layer+1)
	}
	wanted := map[int]bool{}
	add := func(from, to int) {
		for l := from; l <= to; l++ {
			wanted[l] = true
		}
	}
	switch p.Layers {
	case "":
		add(n/3, n-1)
		return wanted, nil
	case "all":
		add(0, n-1)
		return wanted, nil
	}
	for _, part := range strings.Split(p.Layers, ",") {
		first, last, span := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && span {
			to, err = strconv.Atoi(last)
		}
		if err != nil || from < 0 || to < from || to >= n {
			return nil, fmt.Errorf("layers: expected numbers or ranges within 0-%d, such as %d-%d, or \"all\", found %q", n-1, n/3, n-1, part)
		}
		add(from, to)
	}
	return wanted, nil
}
