package report

import (
	"fmt"
	"path/filepath"

	"mlpfusion/experiment"
)

// comparison adds a comparison's sections.
func (p *page) comparison(c *comparison, id string, several bool) error {
	v := newView(c)
	suffix := ""
	if several {
		suffix = " – " + c.name
	}
	for _, t := range v.tiles() {
		if several {
			t.Label = c.name + ": " + t.Label
		}
		p.Tiles = append(p.Tiles, t)
	}
	heats, err := v.heats()
	if err != nil {
		return err
	}
	for _, s := range []section{
		{ID: "results", Title: "Results", Lead: v.describe(), Tables: v.tables(), Figures: v.scores()},
		{ID: "width", Title: "Width and cost", Lead: "How the score falls as fewer hidden units are kept, and what they cost. Bars are one standard deviation over seeds.", Figures: v.widths()},
		{ID: "ntk", Title: "Tangent kernels", Lead: "How far the compressed model's kernel lies from the original's before fine-tuning: ‖K − K₀‖ / ‖K₀‖, all fused blocks summed. Closer means that training moves the outputs alike.", Figures: v.dots(always(experiment.Named("kernel-errors")), "kernel's error, %"), Pictures: heats},
		{ID: "output", Title: "Output error", Lead: "The mean norm of the difference of hidden states, relative to the original's, by layer and after the last one, before fine-tuning.", Figures: append(v.dots(always(experiment.Named("output-errors")), "output error, %"), v.layers()...)},
		{ID: "clusters", Title: "Clusters", Lead: "How well the centroids stand for the hidden units.", Figures: v.clusters()},
		{ID: "routers", Title: "Routers", Lead: "What the routers of the mixtures of experts do with dev texts before fine-tuning, in the original and in the compressed model: means over seeds.", Tables: v.routers(), Figures: v.loads()},
		{ID: "predict", Title: "What predicts the score", Lead: "Each point is one cell; the dashed line is the least-squares fit and r Pearson's correlation.", Figures: v.predictors()},
		{ID: "curves", Title: "Learning curves", Lead: "Means over seeds. The loss is the mean of the steps since the last point.", Figures: v.curves()},
		{ID: "time", Title: "Time and memory", Lead: "Measured on the machine that ran the comparison, on whatever else it was doing. Compression is counted once for each compressed model.", Tables: v.timeTable(), Figures: v.times()},
		{ID: "cells", Title: "All cells", Tables: []table{v.cellTable()}},
	} {
		if len(s.Tables)+len(s.Figures)+len(s.Pictures) == 0 {
			continue
		}
		s.ID = id + "-" + s.ID
		s.Title += suffix
		p.Sections = append(p.Sections, s)
	}
	return nil
}

func (v *view) describe() string {
	s := v.settings
	model := filepath.Base(s.Model) // where it lies is nobody's business who reads the page
	if s.Epochs == 0 {
		return fmt.Sprintf("%s, compressed and measured; not fine-tuned.", model)
	}
	rows := "the whole training set"
	if s.TrainRows > 0 {
		rows = fmt.Sprintf("%d training rows", s.TrainRows)
	}
	layers := "layers " + s.Layers
	switch s.Layers {
	case "paper":
		layers = "the last two thirds of the layers"
	case "", "all":
		layers = "all layers"
	}
	return fmt.Sprintf("%s, %s compressed; %s, batch %d, %s, %s, %s schedule. Means ± standard deviation over seeds; of the compressed models in a column those that none beats by more than noise are marked.",
		model, layers, rows, s.Batch, count(s.Epochs, "epoch"), s.Optimizer, s.Schedule)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (v *view) tiles() []tile {
	tiles := []tile{{"Cells", fmt.Sprint(len(v.cells)), fmt.Sprintf("%s, %s", count(len(v.classes), "method"), count(len(v.tasks()), "task"))}}
	for _, t := range v.tasks() {
		var best experiment.Group
		var top experiment.Stat
		score, label := v.score(t)
		for _, g := range v.groups {
			s := g.Summary(score)
			if g.Task != t || s.N == 0 {
				continue
			}
			if g.Name == experiment.OriginalName {
				tiles = append(tiles, tile{t + ", original", s.String(), label})
			} else if top.N == 0 || (s.Mean < top.Mean) == score.Lower && s.Mean != top.Mean {
				best, top = g, s
			}
		}
		if top.N > 0 {
			tiles = append(tiles, tile{t + ", highest of the compressed", top.String(), fmt.Sprintf("%s, c\u00a0=\u00a0%d", best.Name, best.Width)})
		}
	}
	var total float64
	var memory int64
	for _, c := range v.cells {
		total += c.Seconds.Total
		memory = max(memory, c.PeakMemory)
	}
	tiles = append(tiles, tile{"Time of all cells", clock(total), "one after the other"})
	if memory > 0 {
		tiles = append(tiles, tile{"Peak memory", fmt.Sprintf("%.2f GB", float64(memory)/(1<<30)), "of the largest cell"})
	}
	return tiles
}

// clock is a time for people.
func clock(seconds float64) string {
	switch {
	case seconds < 100:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 6000:
		return fmt.Sprintf("%.0f min", seconds/60)
	}
	return fmt.Sprintf("%.1f h", seconds/3600)
}
