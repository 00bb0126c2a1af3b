package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/report"
)

func (a *app) inspectCommand() *cobra.Command {
	var page, beside string
	var data dataFlags
	var rows int
	var f *pflag.FlagSet
	c := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Show the blocks of a model: widths, parameters, FLOPs, inertia, cluster sizes",
		Long: `Show the blocks of MODEL: their widths, parameters, FLOPs, inertia and cluster
sizes. With --task and --data also what the routers of a mixture of experts do
with the task's texts: the tokens of each expert, those dropped for want of
room, and with --beside the same for the model that was compressed and how many
tokens go where they went.`,
		Example: `  mlpfusion inspect small
  mlpfusion inspect small --html small.html
  mlpfusion inspect small --task sst2 --data glue/SST-2 --beside MOE
  mlpfusion inspect small --json | jq '.blocks[].width'`,
		Args: exactly("MODEL"),
		RunE: func(_ *cobra.Command, args []string) error {
			texts := data.task != "" || data.dir != ""
			if err := cmp.Or(atLeast(f, 0, "rows"), onlyWith(f, []condition{{"rows", texts, "--task and --data"}, {"beside", texts, "--task and --data"}})); err != nil {
				return err
			}
			dir, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			c, err := convert.Inspect(dir)
			if err != nil {
				return err
			}
			if texts {
				if c.Routers, err = a.inspectRouters(dir, beside, &data, rows); err != nil {
					return err
				}
			}
			if page != "" {
				f, err := checkpoint.CreateAtomic(page)
				if err != nil {
					return err
				}
				defer f.Abort()
				if err := report.WriteModel(f, c); err != nil {
					return err
				}
				if err := f.Commit(); err != nil {
					return err
				}
			}
			return a.ui.result(c, func(w io.Writer) { showContents(w, c) })
		},
	}
	f = c.Flags()
	data.addTask(f)
	f.IntVar(&rows, "rows", 1200, "training texts to look at, 0 for all")
	f.StringVar(&beside, "beside", "", "the model that was compressed, for its routers")
	f.StringVar(&page, "html", "", "also write a page with the tables and cluster-size plots to this file")
	arrange(c,
		section{"Routers", "task data rows beside"},
		section{"The page", "html"},
		columnSection,
		section{"Help", "help"})
	return c
}

func (a *app) inspectRouters(dir *checkpoint.Dir, beside string, data *dataFlags, rows int) ([]convert.RouterUse, error) {
	texts, err := a.calibrationTexts(dir, data, rows)
	if err != nil {
		return nil, err
	}
	if beside == "" {
		return a.routers(dir, nil, texts)
	}
	original, err := a.open(beside)
	if err != nil {
		return nil, err
	}
	defer original.Close()
	return a.routers(dir, original, texts)
}

func showContents(w io.Writer, c *convert.Contents) {
	fmt.Fprintf(w, "  %s: %s, %d layers, hidden size %d, %s parameters, %s\n", c.Path, c.Family, c.Layers, c.Hidden, significant(float64(c.Parameters)), bytesText(c.Bytes))
	if f := c.Fusion; f != nil {
		fmt.Fprintf(w, "  compressed by %s from %s, seed %d, P: %s\n", f.Method, f.Source.Name, f.Seed, f.Scale)
	}
	fmt.Fprintln(w)
	rows := make([][]string, 0, len(c.Blocks))
	for _, b := range c.Blocks {
		method, now := b.Method, fmt.Sprint(b.Width)
		if method == "" {
			method = "original"
		}
		if b.Rank > 0 {
			now = fmt.Sprintf("rank %d", b.Rank)
		}
		share, silhouette := "–", "–"
		if b.Explained != nil {
			share, silhouette = fmt.Sprintf("%.1f %%", 100**b.Explained), fmt.Sprintf("%.3f", *b.Silhouette)
		}
		rows = append(rows, []string{b.Name, method, became(fmt.Sprint(b.Original), now),
			became(significant(float64(b.OriginalParam)), significant(float64(b.Parameters))),
			became(significant(float64(b.OriginalFLOPs)), significant(float64(b.FLOPs))), share, silhouette, sizesText(b.Sizes)})
	}
	table(w, []string{"block", "method", "units", "parameters", "FLOPs/token", "inertia explained", "silhouette", "cluster sizes"}, rows)
	fmt.Fprintf(w, "\n  all MLPs: %s FLOPs a token, %s originally (%s); the model: %s parameters, %s originally (%s)\n",
		significant(float64(c.MLPFLOPs)), significant(float64(c.OriginalMLPFLOPs)), change(float64(c.OriginalMLPFLOPs), float64(c.MLPFLOPs)),
		significant(float64(c.Parameters)), significant(float64(c.OriginalParameters)), change(float64(c.OriginalParameters), float64(c.Parameters)))
	if c.Routers != nil {
		fmt.Fprintln(w)
		showRouters(w, c.Routers)
	}
	for _, b := range c.Blocks {
		if b.Sizes != nil && b.Router == "" { // experts are too many for a picture of each
			fmt.Fprintf(w, "\n  cluster sizes of %s\n", b.Name)
			histogram(w, b.SizeCounts())
		}
	}
}

// became is what was and what is now, once where that is the same.
func became(was, now string) string {
	if was == now {
		return now
	}
	return was + " → " + now
}

// sizesText is the smallest, the median and the largest cluster.
func sizesText(sorted []int) string {
	if len(sorted) == 0 {
		return "–"
	}
	return fmt.Sprintf("%d … %d … %d", sorted[0], sorted[len(sorted)/2], sorted[len(sorted)-1])
}

// histogram draws how many clusters there are in each range of sizes.
func histogram(w io.Writer, counts []int) {
	top := slices.Max(counts)
	for bin, n := range counts {
		fmt.Fprintf(w, "  %9s  %s %d\n", convert.SizeRange(bin), bar(n, top, 40), n)
	}
}

// bar is n of top as a bar of at most width cells, in eighths.
func bar(n, top, width int) string {
	full := 8 * width * n / top
	s := strings.Repeat("█", full/8)
	if r := full % 8; r > 0 {
		s += string([]rune(" ▏▎▍▌▋▊▉")[r])
	}
	return s
}
