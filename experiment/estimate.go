package experiment

import (
	"context"
	"time"

	"mlpfusion/kernel"
	"mlpfusion/task"
	"mlpfusion/train"
)

// estimate tells how many seconds the cells of keys will take in all, and each,
// from cells like them that are done: of the same task, method, width and
// tuning, else of the same task and tuning, else any. Without any it returns nil.
func estimate(done map[Key]*Cell, keys []Key) (total float64, each []float64) {
	type sum struct {
		seconds float64
		n       int
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
			sums[l].seconds += c.Seconds.Total
			sums[l].n++
		}
	}
	for _, k := range keys {
		for _, l := range like(k) {
			if s := sums[l]; s != nil {
				each = append(each, s.seconds/float64(s.n))
				total += each[len(each)-1]
				break
			}
		}
	}
	return total, each
}

// Estimate tells how many seconds each of the cells that are not done will
// take. When none is done yet, it times a few training steps of the original on
// each task; measured is then false: compressing and measuring are not counted.
func (r *Runner) Estimate(ctx context.Context, done map[Key]*Cell, todo []Key) (each []float64, measured bool, err error) {
	if _, each := estimate(done, todo); each != nil {
		return each, true, nil
	}
	perEpoch := map[string]float64{}
	for _, k := range todo {
		if _, ok := perEpoch[k.Task]; !ok {
			if perEpoch[k.Task], err = r.epochSeconds(ctx, k); err != nil {
				return nil, false, err
			}
		}
		each = append(each, perEpoch[k.Task]*float64(r.Config.Epochs+k.Tune))
	}
	return each, false, nil
}

// epochSeconds times the original's training and evaluation of an epoch on a
// few batches.
func (r *Runner) epochSeconds(ctx context.Context, k Key) (float64, error) {
	d, err := r.data(k.Task)
	if err != nil {
		return 0, err
	}
	rows, err := d.trainRows(k.Seed, r.Config.TrainRows)
	if err != nil {
		return 0, err
	}
	m, err := loadModel(r.Source.Path, d.head, k.Seed)
	if err != nil {
		return 0, err
	}
	s := train.NewStepper(r.Pool, m, train.PaperOptimizer, kernel.FP32, 0)
	order := task.Shuffle(0, 0, rows.Len())
	var b task.Batch
	var took float64
	const steps = 4
	examples := 0
	for i := range steps {
		if err := ctx.Err(); err != nil {
			return 0, err
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
	return perRow * (float64(rows.Len()) + forward*float64(d.dev.Len())), nil
}
