package report

import (
	"fmt"
	"html/template"
	"strings"

	"mlpfusion/experiment"
)

func (v *view) tables() []table {
	var list []table
	for _, t := range experiment.Tables(v.cells) {
		out := table{Title: strings.TrimSuffix(t.Title+", "+t.Unit, ", "), Head: append([]string{"method"}, t.Columns...)}
		for _, r := range t.Rows {
			row := []entry{{Text: r.Name}}
			for _, s := range r.Stats {
				row = append(row, entry{Text: s.String(), Sort: fmt.Sprintf("%.6f", s.Mean), Best: s.Best || s.Tied})
			}
			out.Rows = append(out.Rows, row)
		}
		list = append(list, out.withCSV(t.Name))
	}
	return list
}

// scores draws each spot's methods side by side.
func (v *view) scores() []figure {
	return v.dots(func(task string) experiment.Quantity { q, _ := v.score(task); return q }, "")
}

// dots draws a quantity, which may depend on the task; "" stands for the label of
// the task's metric.
func (v *view) dots(quantity func(task string) experiment.Quantity, label string) []figure {
	var list []figure
	for _, s := range v.spotsOrTasks() {
		var rows []row
		var compressed []experiment.Group
		var places []int // of these among the rows
		q := quantity(s.task)
		for _, g := range v.at(s) {
			sum := g.Summary(q)
			if sum.N == 0 {
				continue
			}
			rows = append(rows, row{name: g.Name, class: v.classes[g.Name], mean: sum.Mean, std: sum.Std, values: g.Values(q)})
			if g.Name != experiment.OriginalName {
				compressed, places = append(compressed, g), append(places, len(rows)-1)
			}
		}
		if len(rows) == 0 {
			continue
		}
		for _, i := range experiment.Leaders(compressed, q) {
			rows[places[i]].best = true
		}
		x := label
		if x == "" {
			_, x = v.score(s.task)
		}
		list = append(list, figure{Title: s.String(), Note: map[bool]string{true: "Less is better. ", false: ""}[q.Lower] + "Faint dots are seeds.", Plot: template.HTML(dotPlot(s.String(), x, rows))})
	}
	return list
}
