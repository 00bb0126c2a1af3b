package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"mlpfusion/checkpoint"
	"mlpfusion/ntk"
)

func (a *app) stepsCommand() *cobra.Command {
	var flags ntkFlags
	var opt ntk.FitOptions
	var overwrite bool
	c := &cobra.Command{
		Use:   "steps MODEL FUSED OUT",
		Short: "Fit each fused unit's step size to the original's training dynamics",
		Long: `Fit a learning-rate multiplier for each hidden unit of FUSED's blocks, so that
their kernels under Adam come closest to MODEL's on some examples, whose labels
are not used. OUT is FUSED with these multipliers beside each block
(….mlp_step); train multiplies the units' steps by them.`,
		Example: `  mlpfusion steps MODEL small stepped --task sst2 --data glue/SST-2
  mlpfusion ntk MODEL stepped --task sst2 --data glue/SST-2 --blocks fused`,
		Args: exactly("MODEL", "FUSED", "OUT"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.steps(args[0], args[1], args[2], &flags, opt, overwrite)
		},
	}
	f := c.Flags()
	flags.add(f, "train", 128)
	f.Float64Var(&opt.Lower, "lower", 0, "smallest multiplier; units with 0 do not learn")
	f.Float64Var(&opt.Ridge, "ridge", 0, "pull of the multipliers towards 1, relative to the units' kernels (default 1e-3)")
	f.BoolVar(&overwrite, "overwrite", false, "replace OUT when it is there")
	arrange(c,
		section{"Data", "task data rows split"},
		section{"Multipliers", "lower ridge"},
		columnSection,
		section{"The run", "overwrite help"})
	return c
}

func (a *app) steps(original, fused, out string, flags *ntkFlags, opt ntk.FitOptions, overwrite bool) error {
	if !(opt.Lower >= 0 && opt.Ridge >= 0) {
		return usageError{fmt.Errorf("--lower and --ridge: expected at least 0, found %g and %g", opt.Lower, opt.Ridge)}
	}
	if err := apart(out, original, fused); err != nil {
		return err
	}
	pair, err := a.loadPair(original, fused, flags)
	if err != nil {
		return err
	}
	defer pair.fusedDir.Close()
	in, err := pair.examples(a, flags.split, flags.rows)
	if err != nil {
		return err
	}
	o, err := checkpoint.CreateOutput(out, overwrite)
	if err != nil {
		return err
	}
	defer o.Abort()
	report, end := a.blockProgress("fit")
	opt.Progress = report
	fits, err := ntk.FitSteps(a.ctx, a.pool, pair.original, pair.fused, in, opt)
	end(err)
	if err != nil {
		return err
	}
	if err := ntk.SaveSteps(pair.fusedDir, o, fits); err != nil {
		return err
	}
	if err := o.Commit(); err != nil {
		return err
	}
	return a.ui.result(fits, func(w io.Writer) {
		rows := make([][]string, 0, len(fits))
		for _, f := range fits {
			s := slices.Clone(f.Steps)
			slices.Sort(s)
			rows = append(rows, []string{f.Block, fmt.Sprintf("%.4f", f.Before), fmt.Sprintf("%.4f", f.After),
				fmt.Sprintf("%.2f, %.2f, %.2f", s[0], s[len(s)/2], s[len(s)-1])})
		}
		table(w, []string{"block", "relative error before", "after", "multipliers least, median, most"}, rows)
	})
}
