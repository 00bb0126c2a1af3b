package report

import (
	"html/template"
	"maps"
	"slices"

	"mlpfusion/experiment"
	"mlpfusion/train"
)

// curves draws loss and score over the steps of training.
func (v *view) curves() []figure {
	var list []figure
	for _, s := range v.spotsOrTasks() {
		var loss, score []series
		groups := slices.DeleteFunc(v.at(s), func(g experiment.Group) bool { return len(g.Cells[0].Points) == 0 })
		for _, g := range groups {
			var runs [][]train.Point
			for _, c := range g.Cells {
				runs = append(runs, c.Points)
			}
			a, b := curve(runs, v.metric(s.task))
			for _, l := range []*series{&a, &b} {
				l.name, l.class, l.dashed = g.Name, v.classes[g.Name], g.Name == experiment.OriginalName
			}
			loss, score = append(loss, a), append(score, b)
		}
		if len(loss) == 0 {
			continue
		}
		title := s.String()
		list = append(list, figure{Title: title + ": training loss", Plot: template.HTML(lines(title+" training loss", "step", "loss", loss, false, false)), Legend: v.legend(groups)})
		if _, label := v.score(s.task); len(score) > 0 && len(score[0].x) > 1 {
			list = append(list, figure{Title: title + ": dev score", Plot: template.HTML(lines(title+" dev score", "step", label, score, false, true)), Legend: v.legend(groups)})
		}
	}
	return list
}

// curve averages runs: their loss and their score at each step that all have.
func curve(runs [][]train.Point, metric string) (loss, score series) {
	type sum struct {
		v float64
		n int
	}
	losses, scores := map[int]*sum{}, map[int]*sum{}
	add := func(to map[int]*sum, step int, v float64) {
		if to[step] == nil {
			to[step] = &sum{}
		}
		to[step].v += v
		to[step].n++
	}
	for _, points := range runs {
		for _, p := range points {
			add(losses, p.Step, p.Loss)
			for _, m := range p.Metrics {
				if m.Name == metric || metric == "" {
					add(scores, p.Step, experiment.Shown(m))
					break
				}
			}
		}
	}
	for _, pair := range []struct {
		from map[int]*sum
		to   *series
	}{{losses, &loss}, {scores, &score}} {
		for _, step := range slices.Sorted(maps.Keys(pair.from)) {
			if s := pair.from[step]; s.n == len(runs) {
				pair.to.x, pair.to.y = append(pair.to.x, float64(step)), append(pair.to.y, s.v/float64(s.n))
			}
		}
	}
	return loss, score
}
