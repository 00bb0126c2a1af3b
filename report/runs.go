package report

import (
	"fmt"
	"html/template"

	"mlpfusion/task"
	"mlpfusion/train"
)

// runs adds the section of single training runs.
func (p *page) runs(runs []training) {
	t := table{Title: "Best evaluations", Head: []string{"run", "lr", "step", "metric", "value"}}
	var loss, score []series
	var legends []legend
	i := 0
	for _, r := range runs {
		byLR := map[float64][]train.Point{}
		var order []float64
		for _, point := range r.points {
			if byLR[point.LR] == nil {
				order = append(order, point.LR)
			}
			byLR[point.LR] = append(byLR[point.LR], point)
		}
		for _, lr := range order {
			name, class := r.name, fmt.Sprintf("c%d", i%12)
			if len(order) > 1 {
				name += fmt.Sprintf(", lr %g", lr)
			}
			i++
			a, b := curve([][]train.Point{byLR[lr]}, "")
			a.name, b.name, a.class, b.class = name, name, class, class
			loss = append(loss, a)
			if len(b.x) > 0 {
				score = append(score, b)
			}
			legends = append(legends, legend{name, class})
			if best, ok := bestPoint(byLR[lr]); ok {
				for _, m := range best.Metrics {
					t.Rows = append(t.Rows, []entry{{Text: r.name}, {Text: fmt.Sprintf("%g", lr)}, {Text: fmt.Sprint(best.Step)}, {Text: m.Name}, {Text: fmt.Sprintf("%.4f", m.Value)}})
				}
			}
		}
	}
	s := section{ID: "runs", Title: "Training runs", Figures: []figure{{Title: "Training loss", Plot: template.HTML(lines("training loss", "step", "loss", loss, false, false)), Legend: legends}}}
	if len(score) > 0 {
		s.Figures = append(s.Figures, figure{Title: "Dev score", Note: "The first metric of each run, in hundredths.", Plot: template.HTML(lines("dev score", "step", "score, %", score, false, true)), Legend: legends})
	}
	if len(t.Rows) > 0 {
		s.Tables = []table{t.withCSV("runs")}
	}
	if t := samples(runs); len(t.Rows) > 0 {
		s.Tables = append(s.Tables, t.withCSV("samples"))
	}
	p.Sections = append(p.Sections, s)
}

// samples lists what the models wrote while they were trained.
func samples(runs []training) table {
	t := table{Title: "Texts written while training", Head: []string{"run", "lr", "step", "prompt", "text"}}
	for _, r := range runs {
		for _, p := range r.points {
			for _, s := range p.Samples {
				t.Rows = append(t.Rows, []entry{{Text: r.name}, {Text: fmt.Sprintf("%g", p.LR)}, {Text: fmt.Sprint(p.Step)}, {Text: s.Prompt}, {Text: s.Text}})
			}
		}
	}
	return t
}

// bestPoint is the evaluation with the largest first metric, or of tuning the
// smallest distance.
func bestPoint(points []train.Point) (best train.Point, ok bool) {
	for _, p := range points {
		if len(p.Metrics) == 0 {
			continue
		}
		a := p.Metrics[0]
		if !ok || (a.Value > best.Metrics[0].Value) != (task.LowerIsBetter(a.Name)) {
			best, ok = p, true
		}
	}
	return best, ok
}
