// Package shrink makes a fine-tuned model that is smaller and about as good as the
// original fine-tuned: it trains the original, compresses it to narrower and narrower
// blocks, trains each with the original's logits, and writes the narrowest that is
// good enough as what plain transformers loads.
package shrink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/fusion"
	"mlpfusion/internal/disk"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// WorkSuffix is added to the name of the output for the folder that keeps the stages.
const WorkSuffix = ".shrink"

// Config says how models are trained and compressed. Stages made with another are
// not taken up.
type Config struct {
	Method      string       `json:"method"`   // see fusion.Methods
	Train       train.Config `json:"training"` // of the original and of each compressed model
	Distill     float64      `json:"distill"`
	Temperature float64      `json:"temperature"`
}

// Goal says how far to go: Width or Size where given, else Within.
type Goal struct {
	Within float64 // the score lies at most this many points below the original's; of perplexity, this many percent above
	Size   float64 // share of the original's parameters
	Width  int     // hidden units of every block
}

// Data is what models are trained, calibrated and judged on.
type Data struct {
	train.Data
	Calibration convert.Texts
}

// Observer is told how the work goes on. Its methods may be left nil.
type Observer struct {
	Progress func(stage, unit string, done, total int, note string)
	Note     func(format string, args ...any)
}

// Runner shrinks a model.
type Runner struct {
	Config Config
	Goal   Goal
	Source *checkpoint.Dir
	Name   string // of Source, for the record
	Model  string // tells Source's weights from others, as train.Runner.Model
	Head   model.LoadOptions
	Data   Data
	// Sample is the batch on which what is written is compared, see convert.Export.
	Sample            *model.Input
	Out               string
	Resume, Overwrite bool
	Pool              *kernel.Pool
	Threads           int // 0: all
	Observer          Observer

	work string
}

// Made is a fine-tuned model: the original's or a compressed one.
type Made struct {
	Width      int           `json:"width"`
	Metrics    []task.Metric `json:"metrics"` // of the held-out rows
	Low        float64       `json:"low"`     // 95 % interval of the first metric
	High       float64       `json:"high"`
	LR         float64       `json:"lr"`
	Parameters int           `json:"parameters"`
	Bytes      int64         `json:"bytes"`
	MLPFLOPs   int           `json:"mlp_flops_per_token"`
	Error      float64       `json:"error,omitempty"` // that its blocks' outputs had before training, as the curves say
	Rows       *task.Rows    `json:"rows,omitempty"`
	Path       string        `json:"-"` // in the work folder
	// RowsPerSecond is the speed of scoring the held-out rows.
	RowsPerSecond float64 `json:"rows_per_second,omitempty"`
	// Difference is of the first metric, from the original's on the same rows.
	Difference *task.Difference `json:"difference,omitempty"`
}

// Result is what Run comes to.
type Result struct {
	Original *Made             `json:"original"`
	Small    *Made             `json:"small"`
	Tried    []*Made           `json:"tried"`              // of each width, in the order they were
	Majority *float64          `json:"majority,omitempty"` // the metric of always saying the most frequent class
	Rows     int               `json:"rows"`
	Exported *convert.Exported `json:"exported"`
}

// Run makes what is missing and returns all. When ctx ends it stops, and another
// Run with Resume goes on.
func (r *Runner) Run(ctx context.Context) (*Result, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	done, err := r.open()
	if err != nil {
		return nil, err
	}
	defer done()
	original, err := r.original(ctx)
	if err != nil {
		return nil, err
	}
	widths, errs, err := r.curve(ctx, original)
	if err != nil {
		return nil, err
	}
	result := &Result{Original: original, Rows: r.Data.Dev.Len()}
	if v, ok := original.Rows.Majority(); ok {
		result.Majority = &v
	}
	best, err := search(errs, r.first(widths), r.Goal.Within, func(i int) (float64, error) {
		m, err := r.compressed(ctx, original, widths[i], errs[i])
		if err != nil {
			return 0, err
		}
		result.Tried = append(result.Tried, m)
		if len(widths) == 1 {
			return 0, nil
		}
		return lost(original, m), nil
	})
	if err != nil {
		return nil, err
	}
	if best < 0 {
		return nil, r.missed(original, result.Tried)
	}
	for _, m := range result.Tried {
		if m.Width == widths[best] {
			result.Small = m
		}
	}
	if result.Exported, err = r.export(ctx, result.Small); err != nil {
		return nil, err
	}
	if err := r.inspect(result.Small, r.Out); err != nil {
		return nil, err
	}
	return result, r.speeds(ctx, original, result.Small)
}

// Fits tells whether a method leaves fewer units of dense blocks, which is what
// transformers loads and gains from.
func Fits(m *fusion.Method) bool { return m.Units && !m.Mixtures && m.Name != "none" }

// check reports what would fail after hours.
func (r *Runner) check() error {
	m, err := fusion.Lookup(r.Config.Method)
	if err != nil {
		return err
	}
	if !Fits(m) {
		return fmt.Errorf("method: expected one that leaves fewer units, which transformers can load: %s, found %s", strings.Join(fusion.Names(Fits), ", "), m.Name)
	}
	if r.Data.Train.Len() == 0 || r.Data.Dev.Len() < 2 {
		return fmt.Errorf("expected rows to train on and at least 2 others to judge by, found %d and %d", r.Data.Train.Len(), r.Data.Dev.Len())
	}
	cfg, err := model.ReadConfig(r.Source)
	if err != nil {
		return err
	}
	_, blocks, err := model.Describe(cfg)
	if err != nil {
		return err
	}
	if _, err := r.fuseOptions().Choose(blocks); err != nil {
		return fmt.Errorf("%s: %w", r.Name, err)
	}
	_, err = r.Goal.widths(r.Source)
	return err
}

// lost is by how much a model scores below the original, in points, or of perplexity
// in percent.
func lost(original, m *Made) float64 {
	a, b := original.Metrics[0], m.Metrics[0]
	if task.LowerIsBetter(a.Name) {
		return 100 * (b.Value/a.Value - 1)
	}
	return 100 * (a.Value - b.Value)
}

// missed tells that no width was good enough, and what would have been.
func (r *Runner) missed(original *Made, tried []*Made) error {
	nearest := tried[0]
	for _, m := range tried {
		if lost(original, m) < lost(original, nearest) {
			nearest = m
		}
	}
	unit := "points"
	if task.LowerIsBetter(nearest.Metrics[0].Name) {
		unit = "percent"
	}
	return fmt.Errorf("%s: expected a width whose %s is within %g %s of the original's %.4f, found %.4f with %d units at best: --within %.2g takes that one; %s keeps all stages",
		r.Name, nearest.Metrics[0].Name, r.Goal.Within, unit, original.Metrics[0].Value, nearest.Metrics[0].Value, nearest.Width, lost(original, nearest)+0.05, r.work)
}

// open makes the work folder, or takes it up, and locks it.
func (r *Runner) open() (done func(), err error) {
	r.work = filepath.Clean(r.Out) + WorkSuffix
	o, err := checkpoint.CreateOutput(r.Out, r.Overwrite) // better to fail now
	if err != nil {
		return nil, err
	}
	o.Abort()
	settings, err := json.Marshal(struct {
		Config
		Model string `json:"model,omitempty"`
		Train string `json:"train"`
		Dev   string `json:"dev"`
	}{r.Config, r.Model, train.Digest(r.Data.Train), train.Digest(r.Data.Dev)})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(r.work, "settings.json")
	found, err := disk.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := disk.MkdirAll(r.work); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case !r.Resume:
		return nil, fmt.Errorf("%s: expected no earlier run, found its stages: give --resume to go on with them or remove the folder", r.work)
	case string(found) != string(settings):
		return nil, fmt.Errorf("%s: expected the settings of the stages that are there, found others: %s; give those or remove the folder", r.work, train.Changed(found, settings))
	}
	lock, err := checkpoint.CreateAtomic(filepath.Join(r.work, "lock")) // held while this process lives
	if err != nil {
		return nil, err
	}
	if err := checkpoint.WriteFileAtomic(path, settings); err != nil {
		lock.Abort()
		return nil, err
	}
	return lock.Abort, nil
}

// fuseOptions are those of convert for this run's method.
func (r *Runner) fuseOptions() convert.FuseOptions {
	return convert.FuseOptions{Plan: convert.Plan{Layers: "all"}, Method: r.Config.Method, Fusion: fusion.Options{Seed: r.Config.Train.Seed}, Threads: r.Threads, Name: r.Name,
		Resume: true, Overwrite: true}
}

func (r *Runner) progress(stage, unit string, done, total int, note string) {
	if r.Observer.Progress != nil {
		r.Observer.Progress(stage, unit, done, total, note)
	}
}

func (r *Runner) note(format string, args ...any) {
	if r.Observer.Note != nil {
		r.Observer.Note(format, args...)
	}
}
