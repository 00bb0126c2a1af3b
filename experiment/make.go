package experiment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/model"
	"mlpfusion/ntk"
	"mlpfusion/task"
	"mlpfusion/train"
)

// maker makes one cell.
type maker struct {
	*Runner
	*Cell
	v    *Variant
	d    *taskData
	rows *task.Encoded // to train on
	path string        // of the model it starts from
	// What is changed in that model before it is fine-tuned: step sizes by block,
	// and all weights by tuning.
	steps map[string][]float32
	tuned *model.Model
}

// cell makes one cell.
func (r *Runner) cell(ctx context.Context, k Key) (*Cell, error) {
	m, err := r.start(ctx, k)
	if err != nil {
		return nil, err
	}
	if m.v.Steps {
		if err := m.fitSteps(ctx); err != nil {
			return nil, err
		}
	}
	if k.Tune > 0 {
		cfg := m.trainConfig()
		cfg.Epochs, cfg.Optimizer, cfg.Schedule = k.Tune, train.TuneOptimizer, train.Constant
		if m.tuned, _, err = m.train(ctx, "tune", cfg, &train.Tuning{Teacher: r.base.m}, &m.Tuning, &m.Seconds.Tune); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	if err := m.measure(ctx); err != nil {
		return nil, err
	}
	m.Seconds.Measure = time.Since(start).Seconds()
	if r.Config.Epochs > 0 {
		if err := m.fineTune(ctx); err != nil {
			return nil, err
		}
	}
	return m.Cell, nil
}

// start compresses the model and notes what came of it.
func (r *Runner) start(ctx context.Context, k Key) (*maker, error) {
	v, err := ParseVariant(k.Method)
	if err != nil {
		return nil, err
	}
	d, err := r.data(k.Task)
	if err != nil {
		return nil, err
	}
	if err := r.setBase(d, k.Seed); err != nil {
		return nil, err
	}
	rows, err := d.trainRows(k.Seed, r.Config.TrainRows)
	if err != nil {
		return nil, err
	}
	c := &Cell{Key: k, Main: d.set.Spec.Main, Examples: rows.Len(), DevExamples: d.dev.Len()}
	m := &maker{Runner: r, Cell: c, v: v, d: d, rows: rows, path: r.Source.Path}
	if v.Method.Name != original {
		if m.path, c.Seconds.Fuse, err = r.compress(ctx, d, v, k); err != nil {
			return nil, err
		}
	}
	return m, c.inspect(m.path)
}

// load returns the model as fine-tuning begins with it, but for an adapter.
func (m *maker) load() (*model.Model, error) { return m.loadWith(nil) }

// loadWith is load with a new adapter, unless it is nil.
func (m *maker) loadWith(adapter *model.AdapterOptions) (*model.Model, error) {
	n, err := loadModel(m.path, m.d.head, m.Seed, adapter)
	if err != nil {
		return nil, err
	}
	if err := applyMode(n, m.PMode); err != nil {
		return nil, err
	}
	for _, b := range n.Blocks {
		if s, ok := m.steps[b.Name]; ok {
			setSteps(n, b.MLP, s)
		}
	}
	if m.tuned != nil {
		for i, p := range n.Params {
			copy(p.Data, m.tuned.Params[i].Data)
		}
	}
	return n, nil
}

// fitSteps fits step sizes to the original's tangent kernel.
func (m *maker) fitSteps(ctx context.Context) error {
	m.stage("step sizes", "text", 0, m.Config.StepRows, "")
	in, err := m.d.calibration(m.Config.CalibrationRows)
	if err != nil {
		return err
	}
	n, err := m.load()
	if err != nil {
		return err
	}
	fits, err := ntk.FitSteps(ctx, m.Pool, m.base.m, n, packed(in, min(m.Config.StepRows, in.Len())), ntk.FitOptions{Lower: m.v.Lowest})
	m.steps = map[string][]float32{}
	for _, f := range fits {
		m.steps[f.Block] = f.Steps
	}
	return err
}

// trainConfig is what tuning and fine-tuning have in common.
func (m *maker) trainConfig() train.Config {
	return train.Config{Batch: m.Config.Batch, LR: []float64{m.LR}, Seed: m.Seed, BF16: m.Config.Precision == "bf16", SnapshotEvery: 200}
}

// train runs a stage of training and notes its points and seconds.
func (m *maker) train(ctx context.Context, stage string, cfg train.Config, o train.Objective, points *[]train.Point, seconds *float64) (*model.Model, *train.Result, error) {
	start := time.Now()
	t := m.trainer(m.d, m.rows, filepath.Join(m.runDir(m.Key), stage), stage, cfg)
	t.Objective, t.Load = o, func() (*model.Model, error) { return m.loadWith(cfg.LoRA) }
	first, err := t.Load()
	if err != nil {
		return nil, nil, err
	}
	mem, err := t.Memory(first)
	if err != nil {
		return nil, nil, err
	}
	m.TrainingMemory = mem.Weights + mem.Parameters + mem.Step + mem.Evaluation
	again := t.Load
	t.Load = func() (*model.Model, error) {
		if n := first; n != nil {
			first = nil
			return n, nil
		}
		return again()
	}
	best, result, err := t.Run(ctx)
	if err != nil {
		return nil, nil, err
	}
	*seconds = time.Since(start).Seconds()
	*points, err = train.ReadPoints(t.Dir)
	return best, result, err
}

// trainer is a run of training that tells of its stage.
func (r *Runner) trainer(d *taskData, rows *task.Encoded, dir, stage string, cfg train.Config) *train.Runner {
	return &train.Runner{
		Config: cfg, Data: train.Data{Spec: d.set.Spec, Train: rows, Dev: d.dev}, Pool: r.Pool, Dir: dir, Resume: true,
		Observer: train.Observer{
			Step: func(done, total int, loss float64) {
				r.stage(stage, "step", done, total, fmt.Sprintf("loss %.3g", loss))
			},
			Eval: func(done, total int) { r.stage("evaluate", "example", done, total, "") },
		},
	}
}

// fineTune trains the model and scores it.
func (m *maker) fineTune(ctx context.Context) (err error) {
	cfg := m.trainConfig()
	cfg.Epochs, cfg.Schedule, cfg.Warmup, cfg.EvalEvery = m.Config.Epochs, m.Config.Schedule, m.Config.Warmup, m.Config.EvalEvery
	if cfg.Optimizer, err = train.ParseOptimizer(m.Config.Optimizer); err != nil {
		return err
	}
	var o train.Objective
	if m.v.Distill > 0 {
		teacher, err := m.fineTuned(ctx, cfg)
		if err != nil {
			return err
		}
		o = &train.Distillation{Model: teacher, Teacher: original, Weight: m.v.Distill, Temperature: temperature}
	}
	if m.v.LoRA > 0 {
		cfg.LoRA = &model.AdapterOptions{Rank: m.v.LoRA, Alpha: 2 * float64(m.v.LoRA), Targets: []string{"all"}}
	}
	best, result, err := m.train(ctx, "train", cfg, o, &m.Points, &m.Seconds.Train)
	if err != nil {
		return err
	}
	rows, err := train.NewEvaluator(m.Pool, cfg.Precision()).Rows(ctx, best, m.d.set.Spec, m.d.dev, func(done, total int) { m.stage("evaluate", "example", done, total, "") })
	if err != nil {
		return err
	}
	m.Rows = &rows
	m.Metrics, m.Step, m.SecondsPerStep, m.TokensPerSecond = result.Metrics, result.Step, result.SecondsPerStep, result.TokensPerSecond
	if m.Keep && len(m.Blocks) > 0 && m.PMode == Keep && m.v.LoRA == 0 {
		if err := m.keep(best); err != nil {
			return err
		}
	}
	if m.Config.Int8 {
		m.Int8, err = m.scoreInt8(ctx, best, m.d, cfg.Precision())
	}
	return err
}

// keep writes a model that is its task's best so far.
func (m *maker) keep(best *model.Model) error {
	out := filepath.Join(m.Dir, "best", m.Task)
	var before Cell
	err := readJSON(out+".json", &before)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !better(m.Value(), before.Value(), task.LowerIsBetter(m.Main)) {
		return nil
	}
	dir, err := checkpoint.OpenDir(m.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	o, err := checkpoint.CreateOutput(out, true)
	if err != nil {
		return err
	}
	defer o.Abort()
	if err := (&train.Data{Train: m.rows}).Save(best, o, dir); err != nil {
		return err
	}
	if err := o.Commit(); err != nil {
		return err
	}
	return writeJSON(out+".json", Cell{Key: m.Key, Main: m.Main, Metrics: m.Metrics})
}

// compress makes the compressed model a cell starts from, or finds it.
func (r *Runner) compress(ctx context.Context, d *taskData, v *Variant, k Key) (path string, seconds float64, err error) {
	path = filepath.Join(r.Dir, "models", v.compression(k))
	var record struct {
		Seconds float64 `json:"seconds"`
	}
	err = readJSON(path+".json", &record)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, record.Seconds, err
	}
	opt := v.options(k.Width, r.base.m.Config)
	opt.Layers, opt.Threads, opt.Resume, opt.Overwrite, opt.Name = r.Config.Layers, r.Threads, true, true, r.Config.Model
	if v.seeded() {
		opt.Fusion.Seed = k.Seed
	}
	start := time.Now()
	if v.calibrated() {
		texts, err := d.calibration(r.Config.CalibrationRows)
		if err != nil {
			return "", 0, err
		}
		cal := &convert.Texts{Name: fmt.Sprintf("%d rows of %s", texts.Len(), k.Task), Head: d.head, Batches: train.Batches(texts)}
		done, err := opt.Calibrate(ctx, r.Pool, r.Source, cal, v.Usage)
		if err != nil {
			return "", 0, err
		}
		defer done()
	}
	finished := 0
	opt.Progress = func(s convert.Step) {
		if s.Done {
			finished++
		}
		r.stage("compress", "block", finished, s.Of, s.Block)
	}
	if _, err := convert.Fuse(ctx, r.Source, path, opt); err != nil {
		return "", 0, err
	}
	record.Seconds = time.Since(start).Seconds()
	return path, record.Seconds, writeJSON(path+".json", record)
}

// inspect notes what a model directory says of its blocks.
func (c *Cell) inspect(path string) error {
	contents, err := convert.InspectPath(path)
	if err != nil {
		return err
	}
	c.Parameters, c.FLOPs, c.OriginalFLOPs = contents.Parameters, contents.MLPFLOPs, contents.OriginalMLPFLOPs
	if contents.Fusion == nil {
		return nil
	}
	for _, b := range contents.Blocks {
		if l, ok := contents.Fusion.Layers[b.Name]; ok && l.Weights == "" { // whose clustering is another's
			c.Blocks = append(c.Blocks, Block{Name: b.Name, Layer: b.Layer, Width: l.Width, Inertia: l.Inertia, Total: l.Total, Silhouette: l.Silhouette, Sizes: b.Sizes})
		}
	}
	return nil
}

func loadModel(path string, head model.LoadOptions, seed uint64, adapter *model.AdapterOptions) (*model.Model, error) {
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	head.Seed = seed
	if adapter != nil {
		if head.Adapter, err = model.NewAdapter(dir, head, path, *adapter); err != nil {
			return nil, err
		}
	}
	m, _, err := model.Load(dir, head)
	return m, err
}

// packed lays the first n of a seeded order of rows end to end.
func packed(e *task.Encoded, n int) *model.Input {
	var b task.Batch
	rows := task.Shuffle(0, 0, e.Len())[:n]
	slices.Sort(rows)
	e.Fill(&b, rows)
	in := train.InputOf(&b)
	return &in
}
