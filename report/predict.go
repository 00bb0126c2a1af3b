package report

import (
	"fmt"
	"html/template"

	"mlpfusion/experiment"
)

// predictors draws the score against what is known before fine-tuning.
func (v *view) predictors() []figure {
	kernel, output := experiment.Named("kernel-errors"), experiment.Named("output-errors")
	blocks := func(f func(b experiment.Block) float64) func(c *experiment.Cell) (float64, bool) {
		return func(c *experiment.Cell) (float64, bool) {
			if len(c.Blocks) == 0 || c.Blocks[0].Total == 0 {
				return 0, false
			}
			sum := 0.0
			for _, b := range c.Blocks {
				sum += f(b) / float64(len(c.Blocks))
			}
			return sum, true
		}
	}
	var list []figure
	for _, t := range v.tasks() {
		for _, q := range []struct {
			title, label string
			of           func(c *experiment.Cell) (float64, bool)
		}{
			{"tangent kernel's error", "kernel's error, %", kernel.Of},
			{"output error", "last layer's output error, %", output.Of},
			{"inertia", "inertia explained, %, mean of blocks", blocks(func(b experiment.Block) float64 { return 100 * (1 - b.Inertia/b.Total) })},
			{"silhouette", "silhouette, mean of blocks", blocks(func(b experiment.Block) float64 { return b.Silhouette })},
		} {
			score, label := v.score(t)
			byName := map[string]*series{}
			var order []string
			var shown []experiment.Group
			n := 0
			for _, g := range v.groups {
				if g.Task != t {
					continue
				}
				for _, c := range g.Cells {
					x, ok := q.of(c)
					if !ok || len(c.Metrics) == 0 {
						continue
					}
					if byName[g.Name] == nil {
						byName[g.Name] = &series{name: g.Name, class: v.classes[g.Name]}
						order = append(order, g.Name)
						shown = append(shown, g)
					}
					l := byName[g.Name]
					y, _ := score.Of(c)
					l.x, l.y = append(l.x, x), append(l.y, y)
					l.tips = append(l.tips, fmt.Sprintf("%s: %s, %s %.2f", c.Key, number(x), label, y))
					n++
				}
			}
			if n < 3 {
				continue
			}
			var all []series
			for _, name := range order {
				all = append(all, *byName[name])
			}
			list = append(list, figure{Title: t + ": score against " + q.title, Plot: template.HTML(scatter(t+" score against "+q.title, q.label, label, all)), Legend: v.legend(shown)})
		}
	}
	return list
}
