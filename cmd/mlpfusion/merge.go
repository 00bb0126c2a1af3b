package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
)

func (a *app) mergeCommand() *cobra.Command {
	var overwrite bool
	c := &cobra.Command{
		Use:   "merge MODEL ADAPTER OUT",
		Short: "Make one model of a model and an adapter",
		Long: `Write MODEL with the products of ADAPTER added to its matrices, W + scale·B·A, and
with the layers that were trained whole in place of its own: a model like any other.
ADAPTER is a folder as train --lora writes it, or PEFT (LoRA). Matrices keep the type
that they are stored in; in bfloat16 they are rounded once more.`,
		Example: `  mlpfusion merge gpt2 adapter merged`,
		Args:    exactly("MODEL", "ADAPTER", "OUT"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := apart(args[2], args[0], args[1]); err != nil {
				return err
			}
			dir, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			adapter, err := checkpoint.OpenAdapter(args[1])
			if err != nil {
				return err
			}
			defer adapter.Close()
			r, err := convert.MergeAdapter(a.ctx, a.pool, dir, adapter, args[2], overwrite)
			if err != nil {
				return err
			}
			return a.ui.result(r, func(w io.Writer) {
				fmt.Fprintf(w, "  %s: the adapter is part of %s", args[2], count(r.Layers, "layer"))
				if r.Whole > 0 {
					fmt.Fprintf(w, ", and %s its own", count(r.Whole, "tensor"))
				}
				fmt.Fprintf(w, "; %s of weights\n", bytesText(r.Bytes))
			})
		},
	}
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace OUT when it is there")
	return c
}
