package experiment

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"mlpfusion/fusion"
	"mlpfusion/task"
)

// Table is a comparison as the paper prints it: a row for each method (with its
// variants), a column for each task and width.
type Table struct {
	Name    string     `json:"name"`
	Title   string     `json:"title"`
	Note    string     `json:"note"` // seeds and learning rates
	Unit    string     `json:"unit,omitempty"`
	Lower   bool       `json:"lower_is_better"`
	Columns []string   `json:"columns"`
	Rows    []TableRow `json:"rows"`
}

// TableRow is one method's.
type TableRow struct {
	Name  string `json:"name"`
	Stats []Stat `json:"stats"` // one a column; N = 0 where there is no cell
}

// Stat sums a group of cells up, which differ in their seeds.
type Stat struct {
	Mean float64 `json:"mean"`
	Std  float64 `json:"std"` // of a sample; 0 of a single seed
	N    int     `json:"n"`
	LR   float64 `json:"lr"` // of several tried, the one that is best on average
	// Best of the compressed models in the column, by more than noise; or Tied: not
	// clearly worse than the one with the best mean.
	Best bool `json:"best,omitempty"`
	Tied bool `json:"tied,omitempty"`
}

func (s Stat) String() string {
	switch s.N {
	case 0:
		return "–"
	case 1:
		return fmt.Sprintf("%.2f", s.Mean)
	}
	return fmt.Sprintf("%.2f ± %.2f", s.Mean, s.Std)
}

type columnKey struct {
	task  string
	width int
}

// Quantity is something measured of a cell, for tables and plots.
type Quantity struct {
	Name        string // one word, such as for a file
	Title, Unit string
	Lower       bool                          // less is better
	Of          func(c *Cell) (float64, bool) // false: not measured
}

// ScoreOf is the quantity that is a main metric of this name.
func ScoreOf(metric string) Quantity {
	if task.LowerIsBetter(metric) {
		return Named("losses")
	}
	return Named("scores")
}

// Named returns one of Quantities.
func Named(name string) Quantity {
	for _, q := range Quantities() {
		if q.Name == name {
			return q
		}
	}
	panic("experiment: no quantity " + name)
}

// Quantities that tables are made of. The main metric is one of two, by whether
// less of it is better.
func Quantities() []Quantity {
	return []Quantity{
		{"scores", "Dev score after fine-tuning", "%", false, func(c *Cell) (float64, bool) { return c.score(c.Metrics, false) }},
		{"losses", "Dev perplexity after fine-tuning", "", true, func(c *Cell) (float64, bool) { return c.score(c.Metrics, true) }},
		{"int8-scores", "Dev score with int8 blocks", "%", false, func(c *Cell) (float64, bool) { return c.score(c.Int8, false) }},
		{"int8-losses", "Dev perplexity with int8 blocks", "", true, func(c *Cell) (float64, bool) { return c.score(c.Int8, true) }},
		{"kernel-errors", "Tangent kernel's error before fine-tuning", "% of the original's norm", true, func(c *Cell) (float64, bool) {
			if c.NTK == nil {
				return 0, false
			}
			return 100 * c.NTK.Sum.Relative, true
		}},
		{"output-errors", "Last layer's output error before fine-tuning", "% of the states' norm", true, func(c *Cell) (float64, bool) {
			if c.Output == nil {
				return 0, false
			}
			return 100 * c.Output.Relative(), true
		}},
		{"seconds", "Seconds of fine-tuning", "s", true, func(c *Cell) (float64, bool) { return c.Seconds.Train, c.Seconds.Train > 0 }},
		{"memory", "Memory of fine-tuning", "MB", true, func(c *Cell) (float64, bool) {
			return float64(c.TrainingMemory) / (1 << 20), c.TrainingMemory > 0
		}},
	}
}

// Tables sums cells up: one table for each quantity that was measured.
func Tables(cells []*Cell) []Table {
	var tables []Table
	adapters := slices.ContainsFunc(cells, func(c *Cell) bool { return strings.Contains(c.Method, "+lora=") })
	for _, q := range Quantities() {
		if (q.Name == "seconds" || q.Name == "memory") && !adapters { // what adapters are chosen for
			continue
		}
		if t := tabulate(cells, q); len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	return tables
}

func tabulate(cells []*Cell, q Quantity) Table {
	t := Table{Name: q.Name, Title: q.Title, Unit: q.Unit, Lower: q.Lower}
	var columns []columnKey
	var names []string // of rows
	stats, groups := map[string]map[columnKey]Stat{}, map[string]map[columnKey]Group{}
	for _, g := range Groups(cells) {
		s := g.Summary(q)
		if s.N == 0 {
			continue
		}
		col := columnKey{g.Task, g.Width}
		if stats[g.Name] == nil {
			stats[g.Name], groups[g.Name] = map[columnKey]Stat{}, map[columnKey]Group{}
			names = append(names, g.Name)
		}
		stats[g.Name][col], groups[g.Name][col] = s, g
		if !slices.Contains(columns, col) {
			columns = append(columns, col)
		}
	}
	// The original, adapted or not, stands in every column of its task, or in one of its own.
	columns = slices.DeleteFunc(columns, func(c columnKey) bool {
		return c.width == 0 && slices.ContainsFunc(columns, func(o columnKey) bool { return o.task == c.task && o.width > 0 })
	})
	slices.SortFunc(columns, func(a, b columnKey) int { return cmp.Or(cmp.Compare(a.task, b.task), b.width-a.width) })
	for _, name := range names {
		row := TableRow{Name: name}
		for _, c := range columns {
			s, ok := stats[name][c]
			if !ok { // one that is not narrowed
				s = stats[name][columnKey{c.task, 0}]
			}
			row.Stats = append(row.Stats, s)
		}
		t.Rows = append(t.Rows, row)
	}
	for col, c := range columns {
		name := c.task
		if c.width > 0 {
			name = fmt.Sprintf("%s c=%d", c.task, c.width)
		}
		t.Columns = append(t.Columns, name)
		var at []int // rows of the column's compressed models
		var compressed []Group
		for i, r := range t.Rows {
			if g, ok := groups[r.Name][c]; ok && r.Name != OriginalName {
				at, compressed = append(at, i), append(compressed, g)
			}
		}
		leaders := Leaders(compressed, q)
		for _, k := range leaders {
			s := &t.Rows[at[k]].Stats[col]
			s.Best, s.Tied = len(leaders) == 1, len(leaders) > 1
		}
	}
	t.addMajority(cells, columns)
	t.Note = note(t.Rows)
	return t
}

// addMajority adds what always saying the most frequent class would score.
func (t *Table) addMajority(cells []*Cell, columns []columnKey) {
	if t.Name != Named("scores").Name {
		return
	}
	row := TableRow{Name: "most frequent class"}
	any := false
	for _, c := range columns {
		var s Stat
		for _, cell := range cells {
			if cell.Task == c.task && cell.Rows != nil {
				if v, ok := cell.Rows.Majority(); ok {
					s, any = Stat{Mean: 100 * v, N: 1}, true
				}
				break
			}
		}
		row.Stats = append(row.Stats, s)
	}
	if any {
		t.Rows = append(t.Rows, row)
	}
}

// note says how many seeds a table's means are of, and at which learning rates.
func note(rows []TableRow) string {
	least, most := 0, 0
	var rates []string
	for _, r := range rows {
		for _, s := range r.Stats {
			if s.N == 0 || s.LR == 0 {
				continue
			}
			if most == 0 || s.N < least {
				least = s.N
			}
			most = max(most, s.N)
			if lr := fmt.Sprintf("%g", s.LR); !slices.Contains(rates, lr) {
				rates = append(rates, lr)
			}
		}
	}
	text := fmt.Sprintf("%d seeds", most)
	switch {
	case least < most:
		text = fmt.Sprintf("%d to %d seeds", least, most)
	case most == 1:
		text = "1 seed"
	}
	if len(rates) == 1 {
		return text + ", lr " + rates[0]
	}
	return text + ", at each one's better learning rate"
}

// Leaders are the places of the group with the best mean, and of those that are not
// clearly worse: scores are compared on the same seeds and rows (task.Compare), and
// what is measured of fixed texts counts as it is. Without scores of rows, as in cells
// of older versions, nothing is clear.
func Leaders(groups []Group, q Quantity) []int {
	if len(groups) < 2 {
		return nil // nothing to be better than
	}
	best := 0
	means := make([]float64, len(groups))
	for i := range groups {
		means[i] = groups[i].Summary(q).Mean
		if better(means[i], means[best], q.Lower) {
			best = i
		}
	}
	leaders := []int{best}
	for i := range groups {
		if i != best && groups[i].noWorse(&groups[best], q) {
			leaders = append(leaders, i)
		}
	}
	return leaders
}

// noWorse tells that a group is not clearly worse than the best.
func (g *Group) noWorse(best *Group, q Quantity) bool {
	if q.Name != Named("scores").Name && q.Name != Named("losses").Name {
		return g.Summary(q).Mean == best.Summary(q).Mean
	}
	var a, b []task.Rows
	for _, c := range g.Cells {
		for _, other := range best.Cells {
			if c.Seed == other.Seed && c.Rows != nil && other.Rows != nil {
				a, b = append(a, *c.Rows), append(b, *other.Rows)
			}
		}
	}
	d, err := task.Compare(a, b)
	return err != nil || !d.Clear() || better(d.Mean, 0, q.Lower)
}

func better(a, b float64, lower bool) bool {
	if lower {
		return a < b
	}
	return a > b
}

// Group is the cells that differ in their seeds alone. Of several learning
// rates tried it has the one whose mean score is the best.
type Group struct {
	Key          // with seed 0
	Name  string // the method with its variants, for people
	Cells []*Cell
}

// OriginalName is the name of the group of the model that was not compressed.
const OriginalName = "original"

// Groups returns the groups, ordered by task, method and from wide to narrow.
func Groups(cells []*Cell) []Group {
	byKey := map[Key][]*Cell{}
	tunes, modes := map[int]bool{}, map[string]bool{}
	for _, c := range cells {
		k := c.Key
		k.Seed = 0
		byKey[k] = append(byKey[k], c)
		tunes[c.Tune], modes[c.PMode] = true, true
	}
	best := map[Key]Group{}
	for k, list := range byKey {
		slices.SortFunc(list, func(a, b *Cell) int { return cmp.Compare(a.Seed, b.Seed) })
		g := Group{Key: k, Name: k.name(len(modes) > 1, len(tunes) > 1), Cells: list}
		at := k
		at.LR = 0
		other, ok := best[at]
		if !ok {
			best[at] = g
			continue
		}
		if a, b := g.merit(), other.merit(); a > b || a == b && g.LR < other.LR {
			best[at] = g
		}
	}
	groups := slices.Collect(maps.Values(best))
	slices.SortFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), a.Rank()-b.Rank(), cmp.Compare(a.Method, b.Method), a.Tune-b.Tune,
			cmp.Compare(rankMode(a.PMode), rankMode(b.PMode)), b.Width-a.Width)
	})
	return groups
}

// Values are the cells' values of a quantity, where it was measured.
func (g *Group) Values(q Quantity) []float64 {
	var values []float64
	for _, c := range g.Cells {
		if v, ok := q.Of(c); ok {
			values = append(values, v)
		}
	}
	return values
}

// merit says of two groups which is the better: the larger.
func (g *Group) merit() float64 {
	score := ScoreOf(g.Cells[0].Main)
	mean := g.Summary(score).Mean
	if score.Lower {
		return -mean
	}
	return mean
}

// Summary sums the group up.
func (g *Group) Summary(q Quantity) Stat {
	values := g.Values(q)
	mean, std := MeanStd(values)
	return Stat{Mean: mean, Std: std, N: len(values), LR: g.LR}
}

func (k Key) name(modes, tunes bool) string {
	if k.Method == original {
		return OriginalName
	}
	name := k.Method
	if modes && k.PMode != Keep {
		name += ", P " + k.PMode
	}
	if tunes && k.Tune > 0 {
		name += fmt.Sprintf(", tuned %d", k.Tune)
	}
	return name
}

// Rank is the place of a cell's method among the methods, see fusion.Method; behind
// them all when this version does not know it.
func (k Key) Rank() int {
	base, _, _ := strings.Cut(k.Method, "+")
	if m, err := fusion.Lookup(base); err == nil {
		return m.Rank
	}
	return len(fusion.Methods())
}

func rankMode(mode string) int { return slices.Index(pModeNames(), mode) }

// MeanStd returns the mean and the sample's standard deviation, 0 of one value.
func MeanStd(x []float64) (mean, std float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return mean, 0
	}
	for _, v := range x {
		std += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, math.Sqrt(std)
}
