package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/internal/peak"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/ntk"
	"mlpfusion/task"
	"mlpfusion/train"
)

// Observer is told how a comparison goes on. Its methods may be left nil.
type Observer struct {
	Start func(i, of int, k Key)                 // a cell begins, the i-th of those to be done, from 0
	Stage func(stage string, done, total int)    // what it is at
	Done  func(i, of int, c *Cell, left float64) // with the seconds left for the others
	Note  func(format string, args ...any)
}

// Runner makes the cells of a comparison that are not done yet.
type Runner struct {
	Config  Config
	Source  *checkpoint.Dir // the model
	Dir     string          // of the comparison
	Pool    *kernel.Pool
	Threads int // 0: all
	// Shard and Shards, from 1 of 1, give this process its share of the cells.
	// Cells that start from one compressed model stay together, so shards may
	// use one folder or several.
	Shard, Shards int
	Observer      Observer

	tasks map[string]*taskData
	base  *baseline
}

// Run makes the missing cells and returns all of this shard, in order. When ctx
// ends it stops, and another Run goes on.
func (r *Runner) Run(ctx context.Context) ([]*Cell, error) {
	keys, done, err := r.Plan()
	if err != nil {
		return nil, err
	}
	for _, d := range []string{cellsDir, "models", "kernels", "runs"} {
		if err := os.MkdirAll(filepath.Join(r.Dir, d), 0o777); err != nil {
			return nil, err
		}
	}
	if err := writeJSON(filepath.Join(r.Dir, configFile), r.Config); err != nil {
		return nil, err
	}
	// Its temporary name is locked while this process lives.
	lock, err := checkpoint.CreateAtomic(filepath.Join(r.Dir, "runs", r.shardName("shard")))
	if err != nil {
		return nil, err
	}
	defer lock.Abort()
	var todo []Key
	for _, k := range keys {
		if done[k] == nil {
			todo = append(todo, k)
		}
	}
	for i, k := range todo {
		if r.Observer.Start != nil {
			r.Observer.Start(i, len(todo), k)
		}
		peak.Reset()
		start := time.Now()
		c, err := r.cell(ctx, k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		c.Seconds.Total = time.Since(start).Seconds()
		c.PeakMemory = peak.Bytes()
		if err := writeJSON(cellPath(r.Dir, k), c); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(r.runDir(k)); err != nil {
			return nil, err
		}
		done[k] = c
		if r.Observer.Done != nil {
			left, _ := estimate(done, todo[i+1:])
			r.Observer.Done(i, len(todo), c, left)
		}
	}
	cells := make([]*Cell, 0, len(keys))
	for _, k := range keys {
		cells = append(cells, done[k])
	}
	return cells, nil
}

// Plan returns this shard's cells and those of them that are done. It is an
// error when the folder holds cells made with other settings.
func (r *Runner) Plan() (keys []Key, done map[Key]*Cell, err error) {
	if err := r.Config.Check(); err != nil {
		return nil, nil, err
	}
	if r.Shards == 0 {
		r.Shard, r.Shards = 1, 1
	}
	if r.Shard < 1 || r.Shard > r.Shards {
		return nil, nil, fmt.Errorf("shard: expected 1/%d to %d/%d, found %d/%d", r.Shards, r.Shards, r.Shards, r.Shard, r.Shards)
	}
	for _, name := range r.Config.Tasks { // better now than hours later
		spec, err := task.Lookup(name)
		if err != nil {
			return nil, nil, err
		}
		if _, err := findTask(r.Config.Data, spec.Name); err != nil {
			return nil, nil, err
		}
	}
	cfg, err := model.ReadConfig(r.Source)
	if err != nil {
		return nil, nil, err
	}
	_, blocks, err := model.Describe(cfg)
	if err != nil {
		return nil, nil, err
	}
	groups := map[string]int{}
	for _, k := range r.Config.Cells() {
		v, err := ParseVariant(k.Method)
		if err != nil {
			return nil, nil, err
		}
		if err := v.fits(k.Width, r.Config.Layers, cfg, blocks); err != nil {
			return nil, nil, err
		}
		name := v.compression(k)
		if _, ok := groups[name]; !ok {
			groups[name] = len(groups)
		}
		if groups[name]%r.Shards == r.Shard-1 {
			keys = append(keys, k)
		}
	}
	if IsComparison(r.Dir) {
		earlier, _, err := Load(r.Dir)
		if err != nil {
			return nil, nil, err
		}
		a, b := r.Config.Settings, earlier.Settings
		a.Data, b.Data = "", "" // wherever the data lie
		if want, found := differences(b, a); want != "" {
			return nil, nil, fmt.Errorf("%s: expected the settings of the cells that are there, %s, found %s: give these or another folder", r.Dir, want, found)
		}
	}
	done, err = finished(r.Dir, keys)
	return keys, done, err
}

func (r *Runner) shardName(name string) string {
	if r.Shards == 1 {
		return name
	}
	return fmt.Sprintf("%s-%d-of-%d", name, r.Shard, r.Shards)
}

func (r *Runner) runDir(k Key) string { return filepath.Join(r.Dir, "runs", k.ID()) }

func (r *Runner) stage(name string, done, total int) {
	if r.Observer.Stage != nil {
		r.Observer.Stage(name, done, total)
	}
}

// cell makes one cell.
func (r *Runner) cell(ctx context.Context, k Key) (*Cell, error) {
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
	path := r.Source.Path
	if v.Method.Name != original {
		if path, c.Seconds.Fuse, err = r.compress(ctx, d, v, k); err != nil {
			return nil, err
		}
	}
	if err := c.inspect(path); err != nil {
		return nil, err
	}
	steps := map[string][]float32{}
	load := func() (*model.Model, error) {
		m, err := loadModel(path, d.head, k.Seed)
		if err != nil {
			return nil, err
		}
		if err := applyMode(m, k.PMode); err != nil {
			return nil, err
		}
		for _, b := range m.Blocks {
			if s, ok := steps[b.Name]; ok {
				setSteps(m, b.MLP, s)
			}
		}
		return m, nil
	}
	m, err := load()
	if err != nil {
		return nil, err
	}
	if v.Steps {
		r.stage("step sizes", 0, 1)
		in, err := d.calibration(r.Config.CalibrationRows)
		if err != nil {
			return nil, err
		}
		few := packed(in, min(r.Config.StepRows, in.Len()))
		fits, err := ntk.FitSteps(ctx, r.Pool, r.base.m, m, few, ntk.FitOptions{Lower: v.Lowest})
		if err != nil {
			return nil, err
		}
		for _, f := range fits {
			steps[f.Block] = f.Steps
		}
		if m, err = load(); err != nil {
			return nil, err
		}
	}
	cfg := train.Config{Batch: r.Config.Batch, LR: []float64{k.LR}, Seed: k.Seed, BF16: r.Config.Precision == "bf16", SnapshotEvery: 200}
	run := func(stage string, cfg train.Config, teacher *model.Model, points *[]train.Point, seconds *float64) (*model.Model, *train.Result, error) {
		start := time.Now()
		t := train.Runner{Config: cfg, Data: train.Data{Spec: d.set.Spec, Train: rows, Dev: d.dev}, Pool: r.Pool, Load: load, Teacher: teacher,
			Dir: filepath.Join(r.runDir(k), stage), Resume: true}
		t.Observer.Step = func(done, total int, loss float64) { r.stage(fmt.Sprintf("%s, loss %.3g", stage, loss), done, total) }
		t.Observer.Eval = func(done, total int) { r.stage("evaluate", done, total) }
		best, result, err := t.Run(ctx)
		if err != nil {
			return nil, nil, err
		}
		*seconds = time.Since(start).Seconds()
		*points, err = readPoints(filepath.Join(t.Dir, train.MetricsFile))
		return best, result, err
	}
	if k.Tune > 0 {
		cfg := cfg
		cfg.Epochs, cfg.Optimizer, cfg.Schedule = k.Tune, train.TuneOptimizer, train.Constant
		tuned, _, err := run("tune", cfg, r.base.m, &c.Tuning, &c.Seconds.Tune)
		if err != nil {
			return nil, err
		}
		m = tuned
		untuned := load
		load = func() (*model.Model, error) {
			m, err := untuned()
			if err == nil {
				for i, p := range m.Params {
					copy(p.Data, tuned.Params[i].Data)
				}
			}
			return m, err
		}
	}
	start := time.Now()
	if err := r.measure(ctx, c, d, m); err != nil {
		return nil, err
	}
	c.Seconds.Measure = time.Since(start).Seconds()
	if r.Config.Epochs == 0 {
		return c, nil
	}
	cfg.Epochs, cfg.Schedule, cfg.Warmup, cfg.EvalEvery = r.Config.Epochs, r.Config.Schedule, r.Config.Warmup, r.Config.EvalEvery
	if cfg.Optimizer, err = train.ParseOptimizer(r.Config.Optimizer); err != nil {
		return nil, err
	}
	var teacher *model.Model
	if v.Distill > 0 {
		if teacher, err = r.fineTuned(ctx, k, d, cfg); err != nil {
			return nil, err
		}
		cfg.Distill = &train.Distillation{Teacher: original, Weight: v.Distill, Temperature: temperature}
	}
	best, result, err := run("train", cfg, teacher, &c.Points, &c.Seconds.Train)
	if err != nil {
		return nil, err
	}
	if r.Config.Int8 {
		if c.Int8, err = r.scoreInt8(ctx, best, d, cfg.Precision()); err != nil {
			return nil, err
		}
	}
	c.Metrics, c.Step, c.SecondsPerStep, c.TokensPerSecond = result.Metrics, result.Step, result.SecondsPerStep, result.TokensPerSecond
	return c, nil
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
		batches := train.Batches(texts)
		opt.CalibrationName = fmt.Sprintf("%d rows of %s", texts.Len(), k.Task)
		if v.Usage {
			if opt.Usage, err = convert.Routers(ctx, r.Pool, r.base.m, nil, batches, nil); err != nil {
				return "", 0, err
			}
		}
		if v.inputs() {
			cal, err := convert.NewCalibrator(ctx, r.Pool, r.Source, d.head, batches, nil)
			if err != nil {
				return "", 0, err
			}
			defer cal.Close()
			opt.Calibration = cal
		}
	}
	finished := 0
	opt.Progress = func(s convert.Step) {
		if s.Done {
			finished++
		}
		r.stage("fuse", finished, s.Of)
	}
	if _, err := convert.Fuse(ctx, r.Source, path, opt); err != nil {
		return "", 0, err
	}
	record.Seconds = time.Since(start).Seconds()
	return path, record.Seconds, writeJSON(path+".json", record)
}

// inspect notes what a model directory says of its blocks.
func (c *Cell) inspect(path string) error {
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	contents, err := convert.Inspect(dir)
	if err != nil {
		return err
	}
	c.Parameters, c.FLOPs, c.OriginalFLOPs = contents.Parameters, contents.MLPFLOPs, contents.OriginalMLPFLOPs
	if contents.Fusion == nil {
		return nil
	}
	for _, b := range contents.Blocks {
		if l, ok := contents.Fusion.Layers[b.Name]; ok && l.Weights == "" { // whose clustering is another's
			c.Blocks = append(c.Blocks, Block{Name: b.Name, Width: l.Width, Inertia: l.Inertia, Total: l.Total, Silhouette: l.Silhouette, Sizes: b.Sizes})
		}
	}
	return nil
}

// readPoints reads a run's metrics.
func readPoints(path string) ([]train.Point, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var points []train.Point
	for line := range strings.Lines(string(text)) {
		var p train.Point
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		points = append(points, p)
	}
	return points, nil
}

func loadModel(path string, head model.LoadOptions, seed uint64) (*model.Model, error) {
	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	head.Seed = seed
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
