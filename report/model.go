package report

import (
	"fmt"
	"html/template"
	"io"
	"slices"

	"mlpfusion/convert"
)

// WriteModel writes a page of what a checkpoint directory holds: its blocks, and
// a plot of each one's cluster sizes where P is kept.
func WriteModel(w io.Writer, c *convert.Contents) error {
	p := newPage(c.Path)
	p.Tiles = []tile{
		{"Parameters", number(float64(c.Parameters)), "originally " + number(float64(c.OriginalParameters))},
		{"FLOPs of all MLPs", number(float64(c.MLPFLOPs)), "for one token, originally " + number(float64(c.OriginalMLPFLOPs))},
	}
	t := table{Title: "MLP blocks", Note: "FLOPs are for one token.", Head: []string{"block", "method", "units before", "units",
		"parameters before", "parameters", "FLOPs before", "FLOPs", "inertia explained", "silhouette", "smallest", "median", "largest cluster"}}
	ranks := slices.ContainsFunc(c.Blocks, func(b convert.BlockContents) bool { return b.Rank > 0 })
	if ranks {
		t.Head = slices.Insert(t.Head, 4, "rank")
	}
	var figures []figure
	for _, b := range c.Blocks {
		method := b.Method
		if method == "" {
			method = "original"
		}
		cells := []entry{{Text: b.Name}, {Text: method}}
		numbers := []int{b.Original, b.Width, b.OriginalParam, b.Parameters, b.OriginalFLOPs, b.FLOPs}
		if ranks {
			numbers = slices.Insert(numbers, 2, b.Rank)
		}
		for _, v := range numbers {
			cells = append(cells, entry{Text: fmt.Sprint(v)})
		}
		for _, v := range []*float64{b.Explained, b.Silhouette} {
			text := ""
			if v != nil {
				text = fmt.Sprintf("%.4f", *v)
			}
			cells = append(cells, entry{Text: text})
		}
		n := len(b.Sizes)
		if n == 0 {
			t.Rows = append(t.Rows, append(cells, entry{}, entry{}, entry{}))
			continue
		}
		for _, v := range []int{b.Sizes[0], b.Sizes[n/2], b.Sizes[n-1]} {
			cells = append(cells, entry{Text: fmt.Sprint(v)})
		}
		t.Rows = append(t.Rows, cells)
		var sizes []row
		for bin, n := range b.SizeCounts() {
			sizes = append(sizes, row{name: convert.SizeRange(bin), parts: []float64{float64(n)}})
		}
		figures = append(figures, figure{Title: b.Name, Note: "Units of a cluster, and how many clusters have as many.",
			Plot: template.HTML(bars("cluster sizes of "+b.Name, "clusters", sizes, []string{"clusters"}, []string{"c1"}))})
	}
	p.Sections = []section{{ID: "blocks", Title: "Blocks", Tables: []table{t.withCSV("blocks")}}}
	if figures != nil {
		p.Sections = append(p.Sections, section{ID: "clusters", Title: "Cluster sizes", Figures: figures})
	}
	return p.write(w)
}
