package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mlpfusion/checkpoint"
	"mlpfusion/report"
)

func (a *app) reportCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "report DIR…",
		Short: "One HTML page of training runs and comparisons",
		Long: `Make one HTML page of the results in the folders DIR: of comparisons, whose
shards in several folders are shown as one, and of training runs (metrics.jsonl).
The page holds tables with their CSV and all plots, and needs no network.`,
		Example: `  mlpfusion report out --out report.html
  mlpfusion report shard1 shard2 tuned --out report.html`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("expected at least one DIR, found none")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := checkpoint.CreateAtomic(out)
			if err != nil {
				return err
			}
			defer f.Abort()
			if err := report.Write(f, args); err != nil {
				return err
			}
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if err := f.Commit(); err != nil {
				return err
			}
			made := struct {
				Path  string `json:"path"`
				Bytes int64  `json:"bytes"`
			}{out, info.Size()}
			return a.ui.result(made, func(w io.Writer) { fmt.Fprintf(w, "  %s: %s\n", made.Path, bytesText(made.Bytes)) })
		},
	}
	c.Flags().StringVar(&out, "out", "report.html", "the page to write")
	return c
}
