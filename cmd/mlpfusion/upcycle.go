package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mlpfusion/convert"
)

func (a *app) upcycleCommand() *cobra.Command {
	var opt convert.UpcycleOptions
	c := &cobra.Command{
		Use:   "upcycle MODEL OUT",
		Short: "Make a mixture of experts of a dense model",
		Long: `Write a mixture-of-experts model made of the dense one in MODEL: each MLP becomes E
copies of itself behind a new router (sparse upcycling, arXiv 2212.05055), all else
stays. Plain transformers loads it.

  llama, mistral   become mixtral
  qwen3            becomes qwen3_moe
  t5               becomes switch_transformers, in every second layer

In a decoder a token goes to --top-k experts whose weights sum to 1, so the function
stays the dense model's whatever the router says. Experts begin alike and part in
training, by the tokens they get; --noise sets them apart from the start, and --drop
draws that share of each expert's units anew, others in each (drop-upcycling, arXiv
2502.19261), which costs some of what the model knows and lets experts part further.

Switch multiplies an expert's output by the router's probability for it. Against
that the experts' wo is multiplied by E, so that a token gets E·q times what the
dense MLP gives, where q is that probability. With --router-std 0 q is 1/E and
the function is the dense model's exactly, but every token goes to expert 0 and
training never leaves it; with the default tokens spread over the experts and
E·q is within a few hundredths of 1. Tokens beyond --capacity in a sequence pass
the layer unchanged.`,
		Example: `  mlpfusion upcycle SmolLM2-135M moe --experts 4 --top-k 2 --drop 0.5
  mlpfusion upcycle t5-small moe --experts 8
  mlpfusion upcycle t5-small moe --experts 4 --every 1 --noise 0.01 --seed 1`,
		Args: exactly("MODEL", "OUT"),
		RunE: func(c *cobra.Command, args []string) error {
			for _, n := range []struct {
				flag string
				n    int
				from int
			}{{"experts", opt.Experts, 2}, {"top-k", opt.TopK, 1}, {"every", opt.Every, 1}, {"capacity", opt.Capacity, 1}} {
				if c.Flags().Changed(n.flag) && n.n < n.from {
					return usageError{fmt.Errorf("%s: expected at least %d, found %d", n.flag, n.from, n.n)}
				}
			}
			if c.Flags().Changed("drop") && !(opt.Drop >= 0 && opt.Drop <= 1) {
				return usageError{fmt.Errorf("drop: expected a share of 0 to 1, found %g", opt.Drop)}
			}
			if !(opt.Noise >= 0) || !(opt.RouterStd >= 0) {
				return usageError{fmt.Errorf("noise and router-std: expected numbers of at least 0, found %g and %g", opt.Noise, opt.RouterStd)}
			}
			if err := apart(args[1], args[0]); err != nil {
				return err
			}
			dir, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			opt.Seed = a.seed
			bar := a.ui.progress("tensors", "tensor", 0)
			opt.Progress = func(done, total int) { bar.set(done, total, "") }
			r, err := convert.Upcycle(a.ctx, dir, args[1], opt)
			if err != nil {
				bar.stop()
				return err
			}
			bar.end()
			return a.ui.result(r, func(w io.Writer) {
				fmt.Fprintf(w, "  %s: %s, %d experts in each of %d layers\n", args[1], r.Family, r.Experts, len(r.Layers))
				for _, l := range r.Layers {
					fmt.Fprintf(w, "    %s\n", l)
				}
				fmt.Fprintf(w, "  weights: %s, %s before (%s)\n", bytesText(r.Bytes), bytesText(r.SourceBytes), change(float64(r.SourceBytes), float64(r.Bytes)))
			})
		},
	}
	f := c.Flags()
	f.IntVar(&opt.Experts, "experts", 8, "experts of each sparse layer")
	f.IntVar(&opt.TopK, "top-k", 0, "experts that a token goes to, in decoders (default 2)")
	f.IntVar(&opt.Every, "every", 0, "distance of sparse layers in a T5: 2 makes layers 1, 3, 5 … sparse, 1 all (default 2)")
	f.Float64Var(&opt.Noise, "noise", 0, "noise on each expert's weights, relative to their root mean square")
	f.Float64Var(&opt.Drop, "drop", 0, "share of each expert's units that are drawn anew")
	f.Float64Var(&opt.RouterStd, "router-std", 1e-3, "standard deviation of the routers' weights; at 0 a T5's function stays exactly the dense one")
	f.IntVar(&opt.Capacity, "capacity", 0, "most tokens of a sequence that an expert takes, in a T5 (default 512)")
	f.BoolVar(&opt.Overwrite, "overwrite", false, "replace OUT when it is there")
	return c
}
