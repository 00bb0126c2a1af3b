package report

import (
	"fmt"
	"html/template"
	"math"
	"slices"

	"mlpfusion/experiment"
)

// clusters draws inertia by layer and cluster sizes.
func (v *view) clusters() []figure {
	var list []figure
	for _, t := range v.tasks() {
		var explained, sizes []series
		var legends []legend
		wide := v.spots()
		for _, g := range v.groups {
			c := g.Cells[0]
			if g.Task != t || g.PMode != experiment.Keep || g.Tune > 0 || len(c.Blocks) == 0 || c.Blocks[0].Total == 0 {
				continue
			}
			// One colour a width; a dashed line is a further method.
			class := fmt.Sprintf("c%d", 1+slices.Index(wide, spot{t, g.Width})%11)
			name := fmt.Sprintf("%s, c = %d", g.Name, g.Width)
			l := series{name: name, class: class, dashed: g.Method != "fusion"}
			var all []int
			for _, b := range c.Blocks {
				l.x, l.y = append(l.x, float64(b.Layer)), append(l.y, 100*(1-b.Inertia/b.Total))
				all = append(all, b.Sizes...)
			}
			explained = append(explained, l)
			if !slices.ContainsFunc(legends, func(l legend) bool { return l.Name == fmt.Sprintf("c = %d", g.Width) }) {
				legends = append(legends, legend{fmt.Sprintf("c = %d", g.Width), class})
			}
			if len(all) == 0 {
				continue
			}
			slices.SortFunc(all, func(a, b int) int { return b - a })
			l = series{name: name, class: class, dashed: g.Method != "fusion"}
			for i := 0; i <= 100; i++ {
				at := min(i*len(all)/100, len(all)-1)
				l.x, l.y = append(l.x, float64(i)), append(l.y, math.Log2(float64(all[at])))
			}
			sizes = append(sizes, l)
		}
		if len(explained) == 0 {
			continue
		}
		list = append(list, figure{Title: t + ": inertia explained", Note: "The share of the hidden units' spread that the centroids keep, by layer; dashed: other methods than fusion.", Legend: legends,
			Plot: template.HTML(lines(t+" inertia explained", "layer", "explained, %", explained, false, true))})
		if len(sizes) > 0 {
			list = append(list, figure{Title: t + ": cluster sizes", Note: "Clusters of all blocks from the largest to the smallest; sizes as powers of two.", Legend: legends,
				Plot: template.HTML(lines(t+" cluster sizes", "clusters, %", "log₂ of hidden units", sizes, false, false))})
		}
	}
	return list
}
