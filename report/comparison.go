package report

import (
	"fmt"
	"html/template"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/experiment"
	"mlpfusion/train"
)

// view is a comparison being drawn: every method keeps its colour throughout.
type view struct {
	*comparison
	groups  []experiment.Group
	classes map[string]string // by the group's name
}

func newView(c *comparison) *view {
	v := &view{comparison: c, groups: experiment.Groups(c.cells), classes: map[string]string{}}
	taken := map[string]bool{}
	spare := []string{"c9", "c10", "c11", "c3", "c4", "c6", "c7", "c8", "c2", "c5"}
	for _, g := range v.groups {
		if _, ok := v.classes[g.Name]; ok {
			continue
		}
		const colours = 12                    // of style.css
		class := fmt.Sprintf("c%d", g.Rank()) // a method's colour is the same on every page
		if g.Rank() >= colours || taken[class] {
			for _, s := range spare {
				if class = s; !taken[s] {
					break
				}
			}
		}
		taken[class] = true
		v.classes[g.Name] = class
	}
	return v
}

// spot is a task and a width: what one plot of methods is about.
type spot struct {
	task  string
	width int
}

// spots lists the tasks and widths, from wide to narrow.
func (v *view) spots() []spot {
	var list []spot
	for _, g := range v.groups {
		if s := (spot{g.Task, g.Width}); g.Width > 0 && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b spot) int {
		if a.task != b.task {
			return strings.Compare(a.task, b.task)
		}
		return b.width - a.width
	})
	return list
}

// at lists the groups of a spot, the original's with them.
func (v *view) at(s spot) []experiment.Group {
	var list []experiment.Group
	for _, g := range v.groups {
		if g.Task == s.task && (g.Width == s.width || g.Width == 0) {
			list = append(list, g)
		}
	}
	return list
}

func (v *view) tasks() []string {
	var list []string
	for _, g := range v.groups {
		if !slices.Contains(list, g.Task) {
			list = append(list, g.Task)
		}
	}
	return list
}

func (v *view) metric(task string) string {
	for _, c := range v.cells {
		if c.Task == task {
			return c.Main
		}
	}
	return ""
}

// score is the quantity that is a task's main metric, and its axis' label.
func (v *view) score(task string) (q experiment.Quantity, label string) {
	name := v.metric(task)
	if q = experiment.ScoreOf(name); q.Unit == "" {
		return q, name
	}
	return q, name + ", " + q.Unit
}

func always(q experiment.Quantity) func(string) experiment.Quantity {
	return func(string) experiment.Quantity { return q }
}

func (v *view) legend(groups []experiment.Group) []legend {
	var list []legend
	for _, g := range groups {
		if l := (legend{g.Name, v.classes[g.Name]}); !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	return list
}

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
		{ID: "routers", Title: "Routers", Lead: "What the routers of the mixtures of experts do with dev texts before fine-tuning, in the original and in the compressed model: means over seeds.", Tables: v.routers()},
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
	case "":
		layers = "the last two thirds of the layers"
	case "all":
		layers = "all layers"
	}
	return fmt.Sprintf("%s, %s compressed; %s, batch %d, %s, %s, %s schedule. Means ± standard deviation over seeds; the best compressed model of each column is marked.",
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
			tiles = append(tiles, tile{t + ", best compressed", top.String(), fmt.Sprintf("%s, c\u00a0=\u00a0%d", best.Name, best.Width)})
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

func (v *view) tables() []table {
	var list []table
	for _, t := range experiment.Tables(v.cells) {
		out := table{Title: strings.TrimSuffix(t.Title+", "+t.Unit, ", "), Head: append([]string{"method"}, t.Columns...)}
		for _, r := range t.Rows {
			row := []entry{{Text: r.Name}}
			for _, s := range r.Stats {
				row = append(row, entry{Text: s.String(), Sort: fmt.Sprintf("%.6f", s.Mean), Best: s.Best})
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
	spots := v.spots()
	if len(spots) == 0 && label == "" {
		for _, t := range v.tasks() {
			spots = append(spots, spot{t, 0})
		}
	}
	for _, s := range spots {
		var rows []row
		best, q := -1, quantity(s.task)
		for _, g := range v.at(s) {
			sum := g.Summary(q)
			if sum.N == 0 {
				continue
			}
			rows = append(rows, row{name: g.Name, class: v.classes[g.Name], mean: sum.Mean, std: sum.Std, values: g.Values(q)})
			if g.Name != experiment.OriginalName && (best < 0 || (sum.Mean < rows[best].mean) == q.Lower && sum.Mean != rows[best].mean) {
				best = len(rows) - 1
			}
		}
		if len(rows) == 0 {
			continue
		}
		if best >= 0 {
			rows[best].best = true
		}
		x := label
		if x == "" {
			_, x = v.score(s.task)
		}
		title := s.task
		if s.width > 0 {
			title += fmt.Sprintf(", c = %d", s.width)
		}
		list = append(list, figure{Title: title, Note: map[bool]string{true: "Less is better. ", false: ""}[q.Lower] + "Faint dots are seeds.", Plot: template.HTML(dotPlot(title, x, rows))})
	}
	return list
}

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
			title := fmt.Sprintf("%s, c = %d, by layer", s.task, s.width)
			list = append(list, figure{Title: title, Plot: template.HTML(lines(title, "layer", "output error, %", all, false, true)), Legend: v.legend(shown)})
		}
	}
	return list
}

// heats draws the kernels of one seed of each spot, all in the original's
// colours.
func (v *view) heats() ([]figure, error) {
	var list []figure
	const most = 5 // methods shown of a spot: the nearest to the original
	q := experiment.Named("kernel-errors")
	for _, s := range v.spots() {
		groups := slices.DeleteFunc(v.at(s), func(g experiment.Group) bool { return g.Summary(q).N == 0 })
		slices.SortStableFunc(groups, func(a, b experiment.Group) int {
			x, y := a.Summary(q).Mean, b.Summary(q).Mean
			return map[bool]int{true: -1, false: 1}[x < y]
		})
		groups = groups[:min(len(groups), most)]
		for i, g := range groups {
			cell := g.Cells[0]
			original, own, err := v.kernels(cell)
			if err != nil {
				return nil, err
			}
			full := strongest(original)
			title := fmt.Sprintf("%s, c = %d: ", s.task, s.width)
			note := fmt.Sprintf("%s kernel over %d dev texts, seed %d; blue below 0, red above, full colour at %s.", cell.NTK.Kind, cell.NTK.Rows, cell.Seed, number(full))
			if i == 0 {
				picture, err := heat(title+"original", original, full)
				if err != nil {
					return nil, err
				}
				list = append(list, figure{Title: title + "original's kernel", Note: note, Plot: template.HTML(picture)})
			}
			picture, err := heat(title+g.Name, own, full)
			if err != nil {
				return nil, err
			}
			list = append(list, figure{Title: title + g.Name, Note: fmt.Sprintf("Error %.1f %%, centred alignment %.3f; colours as the original's.", 100*cell.NTK.Sum.Relative, cell.NTK.Sum.Alignment), Plot: template.HTML(picture)})
		}
	}
	return list, nil
}

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
			const colours = 12 // of style.css
			class := fmt.Sprintf("c%d", 1+slices.Index(wide, spot{t, g.Width})%11)
			name := fmt.Sprintf("%s, c = %d", g.Name, g.Width)
			l := series{name: name, class: class, dashed: g.Method != "fusion"}
			var all []int
			for i, b := range c.Blocks {
				l.x, l.y = append(l.x, float64(i)), append(l.y, 100*(1-b.Inertia/b.Total))
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
		list = append(list, figure{Title: t + ": inertia explained", Note: "The share of the hidden units' spread that the centroids keep, by fused block; dashed: other methods than fusion.", Legend: legends,
			Plot: template.HTML(lines(t+" inertia explained", "fused block", "explained, %", explained, false, true))})
		if len(sizes) > 0 {
			list = append(list, figure{Title: t + ": cluster sizes", Note: "Clusters of all blocks from the largest to the smallest; sizes as powers of two.", Legend: legends,
				Plot: template.HTML(lines(t+" cluster sizes", "clusters, %", "log₂ of hidden units", sizes, false, false))})
		}
	}
	return list
}

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

// curves draws loss and score over the steps of training.
func (v *view) curves() []figure {
	var list []figure
	spots := v.spots()
	if len(spots) == 0 {
		for _, t := range v.tasks() {
			spots = append(spots, spot{t, 0})
		}
	}
	for _, s := range spots {
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
		title := s.task
		if s.width > 0 {
			title += fmt.Sprintf(", c = %d", s.width)
		}
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

func (v *view) times() []figure {
	var list []figure
	parts, classes := []string{"compress", "measure", "tune", "fine-tune"}, []string{"c1", "c4", "c6", "c2"}
	spots := v.spots()
	for _, s := range spots {
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
		title := fmt.Sprintf("%s, c = %d: time of a cell", s.task, s.width)
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

// routers lists, for each mixture of experts, how much of the tokens the busiest
// expert gets, how much is dropped, and how much goes where it went.
func (v *view) routers() []table {
	t := table{Title: "Routers, before and after", Note: "Shares of a mixture's tokens in percent.",
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

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// cellTable lists every cell.
func (v *view) cellTable() table {
	t := table{Title: "Every cell", Head: []string{"task", "method", "width", "P", "tune", "lr", "seed", "metric", "score", "step", "kernel error", "kernel alignment", "output error", "seconds"}}
	for _, c := range v.cells {
		kernel, alignment, output := "", "", ""
		if c.NTK != nil {
			kernel, alignment = fmt.Sprintf("%.4f", c.NTK.Sum.Relative), fmt.Sprintf("%.4f", c.NTK.Sum.Alignment)
		}
		if c.Output != nil {
			output = fmt.Sprintf("%.4f", c.Output.Relative())
		}
		var row []entry
		for _, text := range []string{c.Task, c.Method, fmt.Sprint(c.Width), c.PMode, fmt.Sprint(c.Tune), fmt.Sprintf("%g", c.LR), fmt.Sprint(c.Seed), c.Main,
			fmt.Sprintf("%.4f", c.Value()), fmt.Sprint(c.Step), kernel, alignment, output, fmt.Sprintf("%.1f", c.Seconds.Total)} {
			row = append(row, entry{Text: text})
		}
		t.Rows = append(t.Rows, row)
	}
	return t.withCSV("cells")
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
