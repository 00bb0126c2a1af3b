package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mlpfusion/convert"
)

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Show the blocks of a model: widths, parameters, FLOPs, inertia, cluster sizes",
		Example: `  mlpfusion inspect small
  mlpfusion inspect small --json | jq '.blocks[].width'`,
		Args: exactly("MODEL"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			c, err := convert.Inspect(dir)
			if err != nil {
				return err
			}
			return a.ui.result(c, func(w io.Writer) { showContents(w, c) })
		},
	}
}

func showContents(w io.Writer, c *convert.Contents) {
	fmt.Fprintf(w, "  %s: %s, %d layers, hidden size %d, %s parameters, %s\n", c.Path, c.Family, c.Layers, c.Hidden, significant(float64(c.Parameters)), bytesText(c.Bytes))
	if f := c.Fusion; f != nil {
		fmt.Fprintf(w, "  compressed by %s from %s, seed %d, P: %s\n", f.Method, f.Source.Name, f.Seed, f.Scale)
	}
	fmt.Fprintln(w)
	rows := make([][]string, 0, len(c.Blocks))
	for _, b := range c.Blocks {
		method := b.Method
		if method == "" {
			method = "original"
		}
		width := fmt.Sprint(b.Width)
		if b.Rank > 0 {
			width = fmt.Sprintf("rank %d", b.Rank)
		}
		share := "–"
		if b.Explained > 0 {
			share = fmt.Sprintf("%.1f %%", 100*b.Explained)
		}
		rows = append(rows, []string{b.Name, method, fmt.Sprint(b.Original), width,
			significant(float64(b.Parameters)), significant(float64(b.FLOPs)), share, sizesText(b.Sizes)})
	}
	table(w, []string{"block", "method", "units", "now", "parameters", "FLOPs/token", "inertia explained", "cluster sizes"}, rows)
	fmt.Fprintf(w, "\n  all MLPs: %s FLOPs a token, %s originally (%s)\n",
		significant(float64(c.MLPFLOPs)), significant(float64(c.OriginalMLPFLOPs)), change(float64(c.OriginalMLPFLOPs), float64(c.MLPFLOPs)))
	for _, b := range c.Blocks {
		if b.Sizes != nil && b.Router == "" { // experts are too many for a picture of each
			fmt.Fprintf(w, "\n  cluster sizes of %s\n", b.Name)
			histogram(w, b.Sizes)
		}
	}
}

// sizesText is the smallest, the median and the largest cluster.
func sizesText(sorted []int) string {
	if len(sorted) == 0 {
		return "–"
	}
	return fmt.Sprintf("%d … %d … %d", sorted[0], sorted[len(sorted)/2], sorted[len(sorted)-1])
}

// histogram draws how many clusters there are of each size, in powers of two.
func histogram(w io.Writer, sizes []int) {
	var counts []int
	for _, s := range sizes {
		bin := 0
		for 1<<(bin+1) <= s {
			bin++
		}
		for len(counts) <= bin {
			counts = append(counts, 0)
		}
		counts[bin]++
	}
	top := 1
	for _, n := range counts {
		top = max(top, n)
	}
	for bin, n := range counts {
		label := fmt.Sprintf("%d–%d", 1<<bin, 1<<(bin+1)-1)
		if bin == 0 {
			label = "1"
		}
		fmt.Fprintf(w, "  %9s  %s %d\n", label, bar(n, top, 40), n)
	}
}

// bar is n of top as a bar of at most width cells, in eighths.
func bar(n, top, width int) string {
	eighths := []rune(" ▏▎▍▌▋▊▉")
	full := 8 * width * n / top
	s := ""
	for range full / 8 {
		s += "█"
	}
	if r := full % 8; r > 0 {
		s += string(eighths[r])
	}
	return s
}
