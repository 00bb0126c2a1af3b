package report

import (
	"fmt"
	"html/template"
	"slices"
)

func (v *view) times() []figure {
	var list []figure
	parts, classes := []string{"compress", "measure", "tune", "fine-tune"}, []string{"c1", "c4", "c6", "c2"}
	for _, s := range v.spots() {
		var rows []row
		for _, g := range v.at(s) {
			r := row{name: g.Name, parts: make([]float64, 4)}
			for _, c := range g.Cells {
				n := float64(len(g.Cells))
				for i, x := range []float64{c.Seconds.Fuse, c.Seconds.Measure, c.Seconds.Tune, c.Seconds.Train} {
					r.parts[i] += x / n
				}
			}
			rows = append(rows, r)
		}
		var legends []legend
		for i, p := range parts {
			if slices.ContainsFunc(rows, func(r row) bool { return r.parts[i] > 0 }) {
				legends = append(legends, legend{p, classes[i]})
			}
		}
		title := s.String() + ": time of a cell"
		list = append(list, figure{Title: title, Note: "Means over seeds.", Plot: template.HTML(bars(title, "seconds", rows, parts, classes)), Legend: legends})
	}
	return list
}

func (v *view) timeTable() []table {
	t := table{Title: "Size, speed and memory", Note: "Speed of training steps alone; memory of the whole cell.",
		Head: []string{"method", "task", "width", "parameters", "MLP FLOPs, %", "s per step", "tokens/s", "peak memory, MB"}}
	for _, g := range v.groups {
		var step, rate, memory []float64
		for _, c := range g.Cells {
			step, rate, memory = append(step, c.SecondsPerStep), append(rate, c.TokensPerSecond), append(memory, float64(c.PeakMemory)/(1<<20))
		}
		c := g.Cells[0]
		width := "–"
		if g.Width > 0 {
			width = fmt.Sprint(g.Width)
		}
		t.Rows = append(t.Rows, []entry{{Text: g.Name}, {Text: g.Task}, {Text: width}, {Text: fmt.Sprint(c.Parameters)}, {Text: fmt.Sprintf("%.1f", 100*float64(c.FLOPs)/float64(c.OriginalFLOPs))},
			{Text: fmt.Sprintf("%.3f", median(step))}, {Text: fmt.Sprintf("%.0f", median(rate))}, {Text: fmt.Sprintf("%.0f", median(memory))}})
	}
	return []table{t.withCSV("time-and-memory")}
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
