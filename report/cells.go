package report

import (
	"fmt"
)

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
