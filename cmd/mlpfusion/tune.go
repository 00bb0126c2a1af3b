package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"mlpfusion/train"
)

func (a *app) tuneCommand() *cobra.Command {
	cfg := train.Config{Optimizer: train.TuneOptimizer, Schedule: train.Constant}
	var run training
	data := &run.data
	var lr float64
	var precision string
	var c *cobra.Command
	c = &cobra.Command{
		Use:   "tune MODEL FUSED OUT",
		Short: "Bring a fused model's hidden states closer to the original's",
		Long: `Train the compressed MLPs of FUSED, and nothing else, to give the hidden states
of MODEL, which FUSED was made from, and write the result to OUT: the paper's
layer-wise task-specific tuning, an optional step before fine-tuning. The task's
training texts are read without their labels; the dev set's texts measure the
distance.

A run that was stopped or killed goes on with --resume.`,
		Example: `  mlpfusion fuse MODEL small
  mlpfusion tune MODEL small closer --task sst2 --data glue/SST-2
  mlpfusion train closer tuned --task sst2 --data glue/SST-2`,
		Args: exactly("MODEL", "FUSED", "OUT"),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg.Seed, cfg.LR = a.seed, []float64{lr}
			var err error
			if cfg.BF16, err = bfloat16(precision); err != nil {
				return err
			}
			f := c.Flags()
			if err := cmp.Or(atLeast(f, 1, "epochs", "batch"), atLeast(f, 0, "max-steps", "eval-every", "snapshot-every"), above0(f, "lr")); err != nil {
				return err
			}
			run.teacher, run.model, run.out, run.config = args[0], args[1], args[2], cfg
			run.batchGiven = c.Flags().Changed("batch")
			return a.train(&run)
		},
	}
	f := c.Flags()
	data.add(f)
	f.IntVar(&data.trainRows, "train-rows", 0, "tune on this many examples, chosen by the seed (default 0, for all)")
	f.IntVar(&cfg.Epochs, "epochs", 1, "passes over the training set")
	f.Float64Var(&lr, "lr", 2e-5, "learning rate of Adam")
	f.IntVar(&cfg.Batch, "batch", 32, "sequences of a batch; of generation tasks 8 unless given")
	f.IntVar(&cfg.MaxSteps, "max-steps", 0, "stop after N steps (default all steps of the epochs)")
	f.StringVar(&precision, "precision", "fp32", "fp32, or bf16 for bfloat16 products with float32 weights and sums")
	f.IntVar(&cfg.EvalEvery, "eval-every", 0, "measure the distance every N steps (default every epoch)")
	f.IntVar(&cfg.SnapshotEvery, "snapshot-every", 200, "steps between snapshots")
	f.BoolVar(&run.resume, "resume", false, "go on with the run that was stopped")
	f.BoolVar(&run.overwrite, "overwrite", false, "replace OUT when it is there")
	arrange(c,
		section{"Data", "task data train-rows dev-rows"},
		section{"Training", "lr epochs batch precision max-steps"},
		columnSection,
		section{"The run", "overwrite resume eval-every snapshot-every help"})
	return c
}
