package report

import (
	"fmt"
	"html/template"
	"slices"

	"mlpfusion/experiment"
	"mlpfusion/model"
)

// loads draws what share of each mixture's tokens its experts get, in the original and in
// the compressed model.
func (v *view) loads() (list []figure) {
	for _, g := range v.groups {
		if len(g.Cells[0].Routers) == 0 {
			continue
		}
		title := fmt.Sprintf("%s, %s, width %d: the experts' load", g.Task, g.Name, g.Width)
		list = append(list, figure{Title: title, Note: "A row is a mixture, the first layer on top; a column is an expert. The darker, the more of the mixture's tokens it gets.",
			Plot: template.HTML(loadMap(title, meanLoads(&g, true), meanLoads(&g, false)))})
	}
	return list
}

// meanLoads are the shares of the tokens of each mixture by expert, means over the seeds.
func meanLoads(g *experiment.Group, original bool) [][]float64 {
	shares := make([][]float64, len(g.Cells[0].Routers))
	for _, c := range g.Cells {
		for i := range c.Routers {
			u := &c.Routers[i].Usage
			if original {
				u = c.Routers[i].Original
			}
			if shares[i] == nil {
				shares[i] = make([]float64, len(u.Tokens))
			}
			for e, s := range loadShares(u) {
				shares[i][e] += s / float64(len(g.Cells))
			}
		}
	}
	return shares
}

// loadShares are the shares of a mixture's choices by expert.
func loadShares(u *model.Usage) []float64 {
	shares := make([]float64, len(u.Tokens))
	for e, n := range u.Tokens {
		shares[e] = float64(n) / float64(max(u.All(), 1))
	}
	return shares
}

// loadMap draws shares of two models side by side, by mixture and expert; the largest of
// all has full colour.
func loadMap(label string, before, after [][]float64) string {
	const top, gap = 22, 12
	row := max(3, min(14, 240/float64(len(before))))
	most := 0.0
	for _, shares := range append(slices.Clone(before), after...) {
		most = max(most, slices.Max(shares))
	}
	width := float64(plotWidth-gap) / 2
	var s svg
	marks := 0
	for side, panel := range []struct {
		name   string
		shares [][]float64
	}{{"original", before}, {"compressed", after}} {
		left := float64(side) * (width + gap)
		s.text(left, 12, "label", panel.name)
		s.add(`<g class="c1">`)
		for i, shares := range panel.shares {
			cell := width / float64(len(shares))
			for e, share := range shares {
				s.add(`<rect class="fill" x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill-opacity="%.2f">%s</rect>`,
					left+float64(e)*cell, top+float64(i)*row, cell, row, share/most, tip("mixture %d, expert %d: %.1f %%", i, e, 100*share))
				marks++
			}
		}
		s.add("</g>")
	}
	return s.done("loads", label, top+row*float64(len(before)), marks)
}

// routers lists, for each mixture of experts, how much of the tokens the busiest
// expert gets, how much is dropped, and how much goes where it went.
func (v *view) routers() []table {
	t := table{Title: "Routers, before and after", Note: "Shares, in percent, of all choices of a mixture; a token chooses several experts where the model has it so.",
		Head: []string{"method", "task", "width", "mixture", "busiest expert, original", "busiest expert", "dropped, original", "dropped", "to the same expert"}}
	for _, g := range v.groups {
		for i, u := range g.Cells[0].Routers {
			var sums [5]float64
			for _, c := range g.Cells {
				u := &c.Routers[i]
				share := func(n, all int64) float64 { return 100 * float64(n) / float64(max(all, 1)) / float64(len(g.Cells)) }
				before := u.Original
				for k, s := range []float64{share(slices.Max(before.Tokens), before.All()), share(slices.Max(u.Tokens), u.All()),
					share(before.Dropped, before.All()), share(u.Dropped, u.All()), share(u.Same, u.All())} {
					sums[k] += s
				}
			}
			row := []entry{{Text: g.Name}, {Text: g.Task}, {Text: fmt.Sprint(g.Width)}, {Text: u.Name}}
			for _, s := range sums {
				row = append(row, entry{Text: fmt.Sprintf("%.1f", s)})
			}
			t.Rows = append(t.Rows, row)
		}
	}
	if t.Rows == nil {
		return nil
	}
	return []table{t.withCSV("routers")}
}
