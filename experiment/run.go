package experiment

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/disk"
	"mlpfusion/internal/peak"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// Observer is told how a comparison goes on. Its methods may be left nil.
type Observer struct {
	Start func(i, of int, k Key)                                 // a cell begins, the i-th of those to be done, from 0
	Stage func(stage, unit string, done, total int, note string) // what it is at
	Done  func(i, of int, c *Cell, left float64)                 // with the seconds left for the others
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
	// Keep writes the best compressed model of each task, by its score, to the
	// folder best of Dir.
	Keep     bool
	Observer Observer

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
		if err := disk.MkdirAll(filepath.Join(r.Dir, d)); err != nil {
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
		} else if err := disk.RemoveAll(r.runDir(k)); err != nil { // of one that was killed when it was done
			return nil, err
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
		if err := disk.RemoveAll(r.runDir(k)); err != nil {
			return nil, err
		}
		done[k] = c
		if r.Observer.Done != nil {
			left, _ := r.estimate(done, todo[i+1:])
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
	r.Config.resolve(cfg)
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

func (r *Runner) stage(stage, unit string, done, total int, note string) {
	if r.Observer.Stage != nil {
		r.Observer.Stage(stage, unit, done, total, note)
	}
}
