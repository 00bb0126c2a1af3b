package report

import (
	"html/template"

	"mlpfusion/experiment"
)

// widths draws the score and its cost against the width.
func (v *view) widths() []figure {
	var list []figure
	for _, t := range v.tasks() {
		byName := map[string]int{}
		var byWidth, byFLOPs []series
		var shown []experiment.Group
		var original experiment.Stat
		score, label := v.score(t)
		for _, g := range v.groups {
			if g.Task != t {
				continue
			}
			s := g.Summary(score)
			if s.N == 0 {
				continue
			}
			if g.Width == 0 {
				original = s
				continue
			}
			i, ok := byName[g.Name]
			if !ok {
				i = len(byWidth)
				byName[g.Name] = i
				l := series{name: g.Name, class: v.classes[g.Name]}
				byWidth, byFLOPs = append(byWidth, l), append(byFLOPs, l)
				shown = append(shown, g)
			}
			share := 100 * float64(g.Cells[0].FLOPs) / float64(g.Cells[0].OriginalFLOPs)
			for _, l := range []struct {
				s *series
				x float64
			}{{&byWidth[i], float64(g.Width)}, {&byFLOPs[i], share}} {
				l.s.x, l.s.y, l.s.err = append(l.s.x, l.x), append(l.s.y, s.Mean), append(l.s.err, s.Std)
			}
		}
		most := 0
		for _, l := range byWidth {
			most = max(most, len(l.x))
		}
		if most < 2 {
			continue
		}
		legends := v.legend(shown)
		if original.N > 0 {
			legends = append(legends, legend{experiment.OriginalName, "c0"})
			for _, all := range []*[]series{&byWidth, &byFLOPs} {
				var xs span
				for _, l := range *all {
					for _, x := range l.x {
						xs.add(x)
					}
				}
				*all = append(*all, series{name: experiment.OriginalName, class: "c0", x: []float64{xs.lo, xs.hi}, y: []float64{original.Mean, original.Mean}, dashed: true})
			}
		}
		list = append(list,
			figure{Title: t + ": score against width", Plot: template.HTML(lines(t+" score against width", "hidden units c", label, byWidth, true, true)), Legend: legends},
			figure{Title: t + ": score against FLOPs", Note: "Of all MLPs, one token; magnitude saves none.", Plot: template.HTML(lines(t+" score against FLOPs", "MLP FLOPs, % of the original", label, byFLOPs, false, true)), Legend: legends})
	}
	return list
}
