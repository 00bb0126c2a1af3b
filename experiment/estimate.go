package experiment

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"mlpfusion/kernel"
	"mlpfusion/task"
	"mlpfusion/train"
)

// estimate tells how many seconds the cells of keys will take in all, and each,
// from cells like them that are done: of the same task, method, width and
// tuning, else of the same task and tuning, else any. A compressed model that is not
// there yet counts with the first cell that starts from it. Without any cell it
// returns nil.
func (r *Runner) estimate(done map[Key]*Cell, keys []Key) (total float64, each []float64) {
	type sum struct {
		own, fuse float64
		n, fused  int
	}
	sums := map[Key]*sum{}
	like := func(k Key) []Key {
		return []Key{{Task: k.Task, Method: k.Method, Width: k.Width, Tune: k.Tune}, {Task: k.Task, Tune: k.Tune}, {Task: k.Task}, {}}
	}
	for k, c := range done {
		for _, l := range like(k) {
			if sums[l] == nil {
				sums[l] = &sum{}
			}
			sums[l].own += c.Seconds.Measure + c.Seconds.Tune + c.Seconds.Train
			sums[l].n++
			if c.Seconds.Fuse > 0 {
				sums[l].fuse += c.Seconds.Fuse
				sums[l].fused++
			}
		}
	}
	new := r.newModels()
	for _, k := range keys {
		for _, l := range like(k) {
			s := sums[l]
			if s == nil {
				continue
			}
			seconds := s.own / float64(s.n)
			if s.fused > 0 && new(k) {
				seconds += s.fuse / float64(s.fused)
			}
			each = append(each, seconds)
			total += seconds
			break
		}
	}
	return total, each
}

// newModels returns a function that tells of each cell in turn whether it starts from
// a compressed model that is not there yet, nor of a cell asked about before.
func (r *Runner) newModels() func(k Key) bool {
	seen := map[string]bool{}
	return func(k Key) bool {
		v, err := ParseVariant(k.Method)
		if err != nil || v.Method.Name == original {
			return false
		}
		name := v.compression(k)
		_, err = os.Stat(filepath.Join(r.Dir, "models", name+".json"))
		made := err == nil || seen[name]
		seen[name] = true
		return !made
	}
}

// calibrationSteps is what fitting to a text costs, in training steps of the original on
// one: docs/calibrated.md has it for 1,200 texts and 100 steps of 32.
const calibrationSteps = 0.8 * 100 * 32 / 1200

// Estimate tells how many seconds each of the cells that are not done will
// take. When none is done yet, it times a few training steps of the original on
// each task; measured is then false: fitting to texts is counted, other compressing
// and measuring are not.
func (r *Runner) Estimate(ctx context.Context, done map[Key]*Cell, todo []Key) (each []float64, measured bool, err error) {
	if _, each := r.estimate(done, todo); each != nil {
		return each, true, nil
	}
	type costs struct{ epoch, row float64 }
	byTask := map[string]costs{}
	new := r.newModels()
	for _, k := range todo {
		c, ok := byTask[k.Task]
		if !ok {
			if c.epoch, c.row, err = r.epochSeconds(ctx, k); err != nil {
				return nil, false, err
			}
			byTask[k.Task] = c
		}
		seconds := c.epoch * float64(r.Config.Epochs+k.Tune)
		if v, err := ParseVariant(k.Method); err == nil && new(k) && v.inputs() {
			seconds += calibrationSteps * c.row * float64(r.Config.CalibrationRows)
		}
		each = append(each, seconds)
	}
	return each, false, nil
}

// epochSeconds times the original's training and evaluation of an epoch, and the
// training on one row, on a few batches.
func (r *Runner) epochSeconds(ctx context.Context, k Key) (epoch, row float64, err error) {
	d, err := r.data(k.Task)
	if err != nil {
		return 0, 0, err
	}
	rows, err := d.trainRows(k.Seed, r.Config.TrainRows)
	if err != nil {
		return 0, 0, err
	}
	m, err := loadModel(r.Source.Path, d.head, k.Seed, nil)
	if err != nil {
		return 0, 0, err
	}
	s := train.NewStepper(r.Pool, m, train.PaperOptimizer, kernel.FP32, 0)
	order := task.Shuffle(0, 0, rows.Len())
	var b task.Batch
	var took float64
	const steps = 4
	examples := 0
	for i := range steps {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		from := min(i*r.Config.Batch, max(0, rows.Len()-r.Config.Batch))
		rows.Fill(&b, order[from:min(rows.Len(), from+r.Config.Batch)])
		start := time.Now()
		s.Step(&b, 0)
		if i > 0 { // the first one makes the memory
			took += time.Since(start).Seconds()
			examples += b.Len()
		}
	}
	perRow := took / float64(examples)
	const forward = 1. / 3 // of a step's work
	return perRow * (float64(rows.Len()) + forward*float64(d.dev.Len())), perRow, nil
}
