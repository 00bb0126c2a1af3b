package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/internal/disk"
	"mlpfusion/task"
	"mlpfusion/train"
)

// distillation is what fuse does behind the fit of each block by itself: the compressed
// model learns the original's predictions, the blocks' weights alone moving.
type distillation struct {
	original, out     string
	steps             int
	data              dataFlags
	resume, overwrite bool
}

const (
	distillRate   = 5e-4 // of Adam; it falls to 0
	distillTokens = 1024 // of a step, where texts are documents cut to a length
	distillDev    = 4096 // tokens it is judged by at the end
)

// blocks is the folder that holds the model until it is distilled.
func (d *distillation) blocks() string { return d.out + ".blocks" }

// made tells whether an interrupted run has compressed the blocks, and refuses what would
// be lost.
func (d *distillation) made() (bool, error) {
	o, err := checkpoint.CreateOutput(d.out, d.overwrite)
	if err != nil {
		return false, err
	}
	o.Abort()
	switch _, err := os.Stat(d.blocks()); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err == nil && !d.resume:
		err = fmt.Errorf("%s: expected no interrupted run, found its blocks: give --resume to go on with them or remove the folder", d.blocks())
		return false, err
	default:
		return err == nil, err
	}
}

// fuseAndDistill has fuse compress the blocks, unless it has, and trains what it made. The
// result is the training's; inspect shows the blocks.
func (a *app) fuseAndDistill(d *distillation, fuse func(out string) (*convert.Fused, error)) error {
	if d.data.task == "" || d.data.dir == "" {
		return usageError{fmt.Errorf("expected --task and --data, found %s", missing(&d.data))}
	}
	spec, err := task.Lookup(d.data.task)
	if err != nil {
		return usageError{err}
	}
	if !spec.LanguageModel() {
		return usageError{fmt.Errorf("distill: expected a task for language models, found %s, whose labels the original has to learn first: train --teacher distils it then", spec.Name)}
	}
	made, err := d.made()
	if err != nil {
		return err
	}
	if !made {
		if _, err := fuse(d.blocks()); err != nil {
			return err
		}
	}
	length := d.data.length(spec)
	run := training{
		teacher: d.original, distill: &train.Distillation{Teacher: d.original, Weight: 1, Temperature: 1, Blocks: true},
		model: d.blocks(), out: d.out, data: d.data, resume: d.resume, overwrite: d.overwrite,
		config: train.Config{Seed: a.seed, LR: []float64{distillRate}, Epochs: d.steps, MaxSteps: d.steps, Warmup: 0.06,
			Optimizer: train.TuneOptimizer, BF16: true, Recompute: true, SnapshotEvery: 20},
	}
	if spec.Documents {
		run.config.Batch, run.batchGiven = max(1, distillTokens/length), true
		run.data.trainRows, run.data.devRows = d.steps*run.config.Batch, max(1, distillDev/length)
	}
	if err := a.train(&run); err != nil {
		return err
	}
	return disk.RemoveAll(d.blocks())
}
