package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mlpfusion/experiment"
	"mlpfusion/train"
)

func (a *app) compareCommand() *cobra.Command {
	given := experiment.Defaults() // by flags
	var file, shard, schedule, keep string
	var seeds []uint
	var dryRun bool
	c := &cobra.Command{
		Use:   "compare MODEL OUT",
		Short: "Many methods, tasks, widths and seeds in one resumable table",
		Long: `Compress MODEL by each method to each width, measure how far its outputs and
tangent kernel are from the original's, fine-tune and evaluate it on each task
with each seed, and print the table. OUT keeps every finished cell: the same
command again goes on with what is missing, after a kill too.

A method may carry modifiers, as in prune+refit or calibrated+steps: kmeans,
ward, best, restarts=N, effort=N, weighted, select, refit, fit=STEPS and balance,
as fuse has them; steps or steps=LOWEST, which fits step sizes to the original's
tangent kernel; distill or distill=WEIGHT, which learns from the fine-tuned
original's logits beside the labels; lora=RANK, which fine-tunes an adapter, and which none
takes too; of mixtures of experts experts=N, usage and
params. none is the original.

Treatments of P, for methods that have one:

` + pModeList() + `
With --config the axes and settings come from a YAML file, whose keys are the
flags' names with underscores; flags given beside it win. With --shard i/n this
process makes its share; the report command shows the shards' folders as one.`,
		Example: `  mlpfusion compare MODEL out --methods none,fusion,svd --tasks sst2 --data glue --widths 384,48
  mlpfusion report out --out report.html
  mlpfusion compare MODEL own --methods none,prune,calibrated+distill --data messages.csv --text message --label category --keep best
  mlpfusion compare MODEL methods --config bench/experiments/methods.yaml --data glue --dry-run`,
		Args: exactly("MODEL", "OUT"),
	}
	f := c.Flags()
	f.StringVar(&file, "config", "", "YAML file of the comparison")
	f.StringSliceVar(&given.Methods, "methods", given.Methods, "methods, with modifiers")
	f.StringSliceVar(&given.Tasks, "tasks", nil, "tasks")
	f.IntSliceVar(&given.Widths, "widths", nil, "hidden units of each compressed block")
	f.Float64SliceVar(&given.Ratios, "ratios", nil, "or `shares` of the original's units to keep (default 0.25)")
	f.Lookup("ratios").DefValue = "" // which pflag shows as []
	f.UintSliceVar(&seeds, "seeds", []uint{1, 2, 3}, "seeds")
	f.Float64SliceVar(&given.LRs, "lrs", given.LRs, "learning `rates`; the table shows the best")
	f.Lookup("lrs").DefValue = "2e-5" // which pflag shows as [0.000020]
	f.StringSliceVar(&given.PModes, "p-modes", given.PModes, "treatments of P, as listed above")
	f.IntSliceVar(&given.Tune, "tune", given.Tune, "epochs of layer-wise tuning before fine-tuning")
	f.StringVar(&given.Data, "data", "", "folder with a folder for each task, or of one task its folder or file")
	f.StringVar(&given.Text, "text", "", "column of the text (task text)")
	f.StringVar(&given.Pair, "text-pair", "", "column of the second text (task text)")
	f.StringVar(&given.Label, "label", "", "column of the label (task text)")
	f.StringVar(&keep, "keep", "none", "none, or best: write the best compressed model of each task to OUT/best")
	f.StringVar(&given.Layers, "layers", "", "layers from 0, such as 2-5; all; or paper, the last two thirds (default all)")
	f.IntVar(&given.TrainRows, "train-rows", 0, "train on this many examples, chosen by the seed (default 0, for all)")
	f.IntVar(&given.DevRows, "dev-rows", 0, "evaluate on this many examples of the dev set only (default 0, for all)")
	f.IntVar(&given.MaxLength, "max-length", given.MaxLength, "tokens of an example; longer ones are cut")
	f.IntVar(&given.Epochs, "epochs", given.Epochs, "passes over the training set; 0 measures without fine-tuning")
	f.IntVar(&given.Batch, "batch", given.Batch, "sequences of a batch")
	f.StringVar(&schedule, "schedule", string(given.Schedule), "learning-rate schedule: linear, cosine or constant")
	f.Float64Var(&given.Warmup, "warmup", given.Warmup, "share of the steps in which the learning rate rises")
	f.StringVar(&given.Optimizer, "optimizer", given.Optimizer, "adamw or sgd; the tangent kernel is this one's")
	f.StringVar(&given.Precision, "precision", given.Precision, "fp32 or bf16, of training")
	f.IntVar(&given.EvalEvery, "eval-every", 0, "evaluate every N steps (default every epoch)")
	f.BoolVar(&given.Int8, "int8", false, "also score with the compressed blocks rounded to int8")
	f.IntVar(&given.NTKRows, "ntk-rows", 0, "dev texts of the tangent kernels, 0 for none")
	f.IntVar(&given.OutputRows, "output-rows", given.OutputRows, "dev texts of the output error")
	f.IntVar(&given.CalibrationRows, "calibration-rows", given.CalibrationRows, "training texts for the methods that look at inputs")
	f.IntVar(&given.StepRows, "step-rows", given.StepRows, "training texts that step sizes are fitted on")
	f.StringVar(&shard, "shard", "", "make the i-th of n shares of the cells, as i/n; 0/n is n/n")
	f.BoolVar(&dryRun, "dry-run", false, "list the cells with their estimated time")
	arrange(c,
		section{"What is compared", "methods widths ratios seeds lrs p-modes tune layers"},
		section{"Data", "data tasks text label text-pair train-rows dev-rows max-length calibration-rows step-rows"},
		section{"What is measured", "ntk-rows output-rows int8"},
		section{"Training", "epochs batch precision schedule warmup optimizer eval-every"},
		section{"The run", "config keep dry-run shard help"})
	c.RunE = func(_ *cobra.Command, args []string) error {
		if f.Changed("seed") {
			return usageError{errors.New("seed: expected --seeds, the axis of the comparison")}
		}
		given.Seeds = nil
		for _, s := range seeds {
			given.Seeds = append(given.Seeds, uint64(s))
		}
		given.Schedule = train.Schedule(schedule)
		cfg := given
		if file != "" {
			cfg = experiment.Defaults()
			if err := cfg.ReadConfig(file); err != nil {
				return err
			}
			cfg.Override(&given, func(key string) bool { return f.Changed(strings.ReplaceAll(key, "_", "-")) })
		}
		cfg.Model = args[0]
		if len(cfg.Tasks) == 0 && (cfg.Text != "" || cfg.Label != "") {
			cfg.Tasks = []string{"text"}
		}
		if keep != "none" && keep != "best" {
			return usageError{fmt.Errorf("keep: expected none or best, found %q", keep)}
		}
		if err := cfg.Check(); err != nil {
			return usageError{err}
		}
		r := &experiment.Runner{Config: cfg, Dir: args[1], Threads: a.threads, Pool: a.pool, Keep: keep == "best"}
		if shard != "" {
			var err error
			if r.Shard, r.Shards, err = parseShard(shard); err != nil {
				return err
			}
		}
		if !dryRun {
			a.kept = args[1]
		}
		dir, err := a.open(args[0])
		if err != nil {
			return err
		}
		defer dir.Close()
		r.Source = dir
		if dryRun {
			return a.listCells(r)
		}
		return a.compare(r)
	}
	return c
}

// pModeList is a line for each treatment of P.
func pModeList() string {
	var b strings.Builder
	for _, m := range experiment.PModes() {
		fmt.Fprintf(&b, "  %-9s %s\n", m.Name, m.About)
	}
	return b.String()
}

func (a *app) compare(r *experiment.Runner) error {
	line := &stages{u: &a.ui, drop: true}
	cell := ""
	r.Observer = experiment.Observer{
		Note: a.ui.say,
		Start: func(i, of int, k experiment.Key) {
			cell = fmt.Sprintf("%d/%d ", i+1, of)
			a.ui.say("cell %d of %d: %s", i+1, of, k)
		},
		Stage: func(stage, unit string, done, total int, note string) { line.set(cell+stage, unit, done, total, note) },
		Done: func(i, of int, c *experiment.Cell, left float64) {
			line.end()
			text := fmt.Sprintf("cell %d of %d: %s in %s", i+1, of, outcome(c), clock(c.Seconds.Total))
			if i+1 < of {
				text += ", " + clock(left) + " left for the others"
			}
			a.ui.say("%s", text)
		},
	}
	cells, err := r.Run(a.ctx)
	if err != nil {
		line.stop()
		return err
	}
	tables := experiment.Tables(cells)
	return a.ui.result(map[string]any{"tables": tables, "cells": cells}, func(w io.Writer) {
		showTables(w, tables)
		if r.Keep {
			fmt.Fprintf(w, "\n  %s: the best compressed model of each task\n", filepath.Join(r.Dir, "best"))
		}
	})
}

// outcome is what a cell came to, in a few words.
func outcome(c *experiment.Cell) string {
	var parts []string
	if len(c.Metrics) > 0 {
		parts = append(parts, fmt.Sprintf("%s %.4f", c.Main, c.Value()))
	}
	if c.NTK != nil {
		parts = append(parts, fmt.Sprintf("kernel's error %.3f", c.NTK.Sum.Relative))
	}
	if c.Output != nil {
		parts = append(parts, fmt.Sprintf("output error %.3f", c.Output.Relative()))
	}
	return strings.Join(append(parts, "done"), ", ")
}

// showTables prints tables as the paper does. Of the compressed models in a column
// the best is marked, or all that are as good within the noise.
func showTables(w io.Writer, tables []experiment.Table) {
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(w)
		}
		unit := ""
		if t.Unit != "" {
			unit = ", " + t.Unit
		}
		fmt.Fprintf(w, "  %s%s; %s (* best, ~ as good within the noise)\n\n", t.Title, unit, t.Note)
		head := append([]string{"method"}, t.Columns...)
		several := strings.Contains(t.Note, "learning rate") // each says its own
		var rows [][]string
		for _, r := range t.Rows {
			row := []string{r.Name}
			for _, s := range r.Stats {
				mark := " "
				switch {
				case s.Best:
					mark = "*"
				case s.Tied:
					mark = "~"
				}
				text := s.String()
				if several && s.LR > 0 && s.N > 0 {
					text += fmt.Sprintf(" at %g", s.LR)
				}
				row = append(row, text+mark)
			}
			rows = append(rows, row)
		}
		table(w, head, rows)
	}
}

// planned is what --dry-run lists.
type planned struct {
	experiment.Key
	Done    bool    `json:"done"`
	Seconds float64 `json:"seconds"` // taken, or estimated
}

func (a *app) listCells(r *experiment.Runner) error {
	keys, done, err := r.Plan()
	if err != nil {
		return err
	}
	var todo []experiment.Key
	for _, k := range keys {
		if done[k] == nil {
			todo = append(todo, k)
		}
	}
	each, measured, err := r.Estimate(a.ctx, done, todo)
	if err != nil {
		return err
	}
	var list []planned
	var left float64
	for _, k := range keys {
		p := planned{Key: k}
		if c := done[k]; c != nil {
			p.Done, p.Seconds = true, c.Seconds.Total
		} else {
			p.Seconds, each = each[0], each[1:]
			left += p.Seconds
		}
		list = append(list, p)
	}
	return a.ui.result(list, func(w io.Writer) {
		var rows [][]string
		for _, p := range list {
			state := "to do"
			if p.Done {
				state = "done"
			}
			rows = append(rows, []string{p.String(), state, clock(p.Seconds)})
		}
		table(w, []string{"cell", "state", "time"}, rows)
		fmt.Fprintf(w, "\n  %s, %d to do, about %s", count(len(list), "cell"), len(todo), clock(left))
		if !measured && len(todo) > 0 {
			fmt.Fprint(w, " by a few training steps of the original; compressing without texts and measuring not counted")
		}
		fmt.Fprintln(w)
	})
}
