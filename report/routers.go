package report

import (
	"fmt"
	"slices"
)

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
