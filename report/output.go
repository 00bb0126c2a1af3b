package report

import (
	"html/template"

	"mlpfusion/experiment"
)

// layers draws the output error by layer.
func (v *view) layers() []figure {
	var list []figure
	for _, s := range v.spots() {
		var all []series
		var shown []experiment.Group
		for _, g := range v.at(s) {
			l := series{name: g.Name, class: v.classes[g.Name]}
			n := 0.0
			for _, c := range g.Cells {
				if c.Output == nil {
					continue
				}
				n++
				for i, e := range c.Output.Hidden {
					if len(l.x) <= i {
						l.x, l.y = append(l.x, float64(i)), append(l.y, 0)
					}
					l.y[i] += 100 * e / c.Output.HiddenNorm[i]
				}
			}
			for i := range l.y {
				l.y[i] /= n
			}
			if len(l.x) > 1 {
				all, shown = append(all, l), append(shown, g)
			}
		}
		if len(all) > 0 {
			title := s.String() + ", by layer"
			list = append(list, figure{Title: title, Plot: template.HTML(lines(title, "layer", "output error, %", all, false, true)), Legend: v.legend(shown)})
		}
	}
	return list
}
