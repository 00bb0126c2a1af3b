package experiment

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Table is a comparison as the paper prints it: a row for each method (with its
// variants), a column for each task and width.
type Table struct {
	Title   string      `json:"title"`
	Unit    string      `json:"unit,omitempty"`
	Lower   bool        `json:"lower_is_better"`
	Columns []string    `json:"columns"`
	Rows    []TableRow  `json:"rows"`
	columns []columnKey // beside Columns
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
	LR   float64 `json:"lr"`             // of several tried, the one that is best on average
	Best bool    `json:"best,omitempty"` // of the compressed models in the column
}

func (s Stat) String() string {
	switch {
	case s.N == 0:
		return "–"
	case s.N == 1:
		return fmt.Sprintf("%.2f", s.Mean)
	}
	return fmt.Sprintf("%.2f ± %.2f", s.Mean, s.Std)
}

type columnKey struct {
	task  string
	width int
}

type rowKey struct {
	method, mode string
	tune         int
}

// Quantity is something measured of a cell, for tables and plots.
type Quantity struct {
	Title, Unit string
	Lower       bool                          // less is better
	Of          func(c *Cell) (float64, bool) // false: not measured
}

// Quantities that a table is made of.
func Quantities() []Quantity {
	return []Quantity{
		{"Dev score after fine-tuning", "%", false, func(c *Cell) (float64, bool) { return 100 * c.Value(), len(c.Metrics) > 0 }},
		{"Tangent kernel's error before fine-tuning", "% of the original's norm", true, func(c *Cell) (float64, bool) {
			if c.NTK == nil {
				return 0, false
			}
			return 100 * c.NTK.Sum.Relative, true
		}},
		{"Last layer's output error before fine-tuning", "% of the states' norm", true, func(c *Cell) (float64, bool) {
			if c.Output == nil {
				return 0, false
			}
			return 100 * c.Output.Relative(), true
		}},
	}
}

// Tables sums cells up: one table for each quantity that was measured.
func Tables(cells []*Cell) []Table {
	var tables []Table
	for _, q := range Quantities() {
		if t := tabulate(cells, q); len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	return tables
}

func tabulate(cells []*Cell, q Quantity) Table {
	t := Table{Title: q.Title, Unit: q.Unit, Lower: q.Lower}
	values := map[rowKey]map[columnKey]map[float64][]float64{} // by learning rate
	var rows []rowKey
	tunes, modes := map[int]bool{}, map[string]bool{}
	for _, c := range cells {
		v, ok := q.Of(c)
		if !ok {
			continue
		}
		r, col := rowKey{c.Method, c.PMode, c.Tune}, columnKey{c.Task, c.Width}
		if values[r] == nil {
			values[r] = map[columnKey]map[float64][]float64{}
			rows = append(rows, r)
		}
		if values[r][col] == nil {
			values[r][col] = map[float64][]float64{}
		}
		values[r][col][c.LR] = append(values[r][col][c.LR], v)
		if !slices.Contains(t.columns, col) && c.Width > 0 {
			t.columns = append(t.columns, col)
		}
		tunes[c.Tune], modes[c.PMode] = true, true
	}
	if len(t.columns) == 0 { // the original alone
		for _, c := range cells {
			if col := (columnKey{c.Task, 0}); !slices.Contains(t.columns, col) && len(rows) > 0 {
				t.columns = append(t.columns, col)
			}
		}
	}
	slices.SortFunc(t.columns, func(a, b columnKey) int { return cmp.Or(cmp.Compare(a.task, b.task), b.width-a.width) })
	slices.SortFunc(rows, func(a, b rowKey) int {
		return cmp.Or(cmp.Compare(rank(a.method), rank(b.method)), cmp.Compare(a.method, b.method), a.tune-b.tune, cmp.Compare(rankMode(a.mode), rankMode(b.mode)))
	})
	for _, c := range t.columns {
		name := c.task
		if c.width > 0 {
			name = fmt.Sprintf("%s c=%d", c.task, c.width)
		}
		t.Columns = append(t.Columns, name)
	}
	for _, r := range rows {
		row := TableRow{Name: r.name(len(modes) > 1, len(tunes) > 1)}
		for _, c := range t.columns {
			if r.method == original {
				c.width = 0
			}
			row.Stats = append(row.Stats, summarize(values[r][c], q.Lower))
		}
		t.Rows = append(t.Rows, row)
	}
	for col := range t.columns {
		best := -1
		for i, r := range rows {
			s := t.Rows[i].Stats[col]
			if r.method == original || s.N == 0 {
				continue
			}
			if best < 0 || (s.Mean < t.Rows[best].Stats[col].Mean) == q.Lower && s.Mean != t.Rows[best].Stats[col].Mean {
				best = i
			}
		}
		if best >= 0 {
			t.Rows[best].Stats[col].Best = true
		}
	}
	return t
}

func (r rowKey) name(modes, tunes bool) string {
	if r.method == original {
		return "original"
	}
	name := r.method
	if modes && r.mode != Keep {
		name += ", P " + map[string]string{Fold: "folded", Divide: "divided", Identity: "left out"}[r.mode]
	}
	if tunes && r.tune > 0 {
		name += fmt.Sprintf(", tuned %d", r.tune)
	}
	return name
}

// rank orders methods: the original, the paper's, ours, then the baselines.
func rank(method string) int {
	base, _, _ := strings.Cut(method, "+")
	return slices.Index([]string{original, "fusion", "calibrated", "cluster", "sketch", "svd", "mmd", "prune", "magnitude"}, base)
}

func rankMode(mode string) int { return slices.Index(PModes(), mode) }

// summarize takes the learning rate with the best mean.
func summarize(byLR map[float64][]float64, lower bool) Stat {
	var best Stat
	lrs := make([]float64, 0, len(byLR))
	for lr := range byLR {
		lrs = append(lrs, lr)
	}
	slices.Sort(lrs)
	for _, lr := range lrs {
		mean, std := MeanStd(byLR[lr])
		if best.N == 0 || (mean < best.Mean) == lower && mean != best.Mean {
			best = Stat{Mean: mean, Std: std, N: len(byLR[lr]), LR: lr}
		}
	}
	return best
}

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
