package shrink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/internal/disk"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// What the folders of a run of training and of a compressed model end with.
const trainSuffix, fusedSuffix = ".train", "-fused"

// stage makes what a file of the work folder records, unless it is there. What it was
// made of goes once it is recorded: a run that is killed while folders are removed
// does not look into them again.
func stage[T any](r *Runner, name string, do func() (T, error)) (v T, err error) {
	defer func() {
		for _, suffix := range []string{trainSuffix, fusedSuffix} {
			if err == nil {
				err = disk.RemoveAll(filepath.Join(r.work, name+suffix))
			}
		}
	}()
	path := filepath.Join(r.work, name+".json")
	text, err := disk.ReadFile(path)
	if err == nil {
		if err = json.Unmarshal(text, &v); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
		return v, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	if v, err = do(); err != nil {
		return v, err
	}
	if text, err = json.Marshal(v); err != nil {
		return v, err
	}
	return v, checkpoint.WriteFileAtomic(path, text)
}

// original is the source fine-tuned.
func (r *Runner) original(ctx context.Context) (*Made, error) {
	m, err := stage(r, "original", func() (*Made, error) {
		r.note("the original is fine-tuned")
		return r.train(ctx, "original", r.Source, r.Head, train.Labels{})
	})
	if err == nil {
		m.Path = filepath.Join(r.work, "original")
	}
	return m, err
}

// compressed is the original compressed to a width and trained with its logits.
func (r *Runner) compressed(ctx context.Context, original *Made, width int, left float64) (*Made, error) {
	name := strconv.Itoa(width)
	m, err := stage(r, name, func() (*Made, error) {
		r.note("%d units a block: compressed and trained", width)
		teacher, err := checkpoint.OpenDir(original.Path)
		if err != nil {
			return nil, err
		}
		defer teacher.Close()
		fused := filepath.Join(r.work, name+fusedSuffix)
		if err := r.fuse(ctx, teacher, fused, width); err != nil {
			return nil, err
		}
		head := r.Head
		head.NewHead = false
		var o train.Objective = train.Labels{}
		if r.Config.Distill > 0 {
			t, _, err := model.Load(teacher, head)
			if err != nil {
				return nil, err
			}
			o = &train.Distillation{Model: t, Teacher: "original", Weight: r.Config.Distill, Temperature: r.Config.Temperature}
		}
		small, err := checkpoint.OpenDir(fused)
		if err != nil {
			return nil, err
		}
		defer small.Close()
		m, err := r.train(ctx, name, small, head, o)
		if err != nil {
			return nil, err
		}
		m.Error = left
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	m.Path = filepath.Join(r.work, name)
	d, err := task.Compare([]task.Rows{*m.Rows}, []task.Rows{*original.Rows})
	m.Difference = &d
	return m, err
}

// fuse compresses a model to a width.
func (r *Runner) fuse(ctx context.Context, from *checkpoint.Dir, to string, width int) error {
	opt := r.fuseOptions()
	opt.Width = width
	done, err := opt.Calibrate(ctx, r.Pool, from, &r.Data.Calibration, false)
	if err != nil {
		return err
	}
	defer done()
	finished := 0
	opt.Progress = func(s convert.Step) {
		if s.Done {
			finished++
		}
		r.progress(fmt.Sprintf("compress to %d", width), "block", finished, s.Of, s.Block)
	}
	_, err = convert.Fuse(ctx, from, to, opt)
	return err
}

// train trains a model, writes it to the work folder and scores it.
func (r *Runner) train(ctx context.Context, name string, from *checkpoint.Dir, head model.LoadOptions, objective train.Objective) (*Made, error) {
	path := filepath.Join(r.work, name)
	t := &train.Runner{
		Config: r.Config.Train, Data: r.Data.Data, Pool: r.Pool, Objective: objective, Dir: path + trainSuffix, Resume: true,
		Load: func() (*model.Model, error) {
			m, _, err := model.Load(from, head)
			return m, err
		},
		Observer: train.Observer{
			Step: func(done, total int, loss float64) {
				r.progress("train "+name, "step", done, total, fmt.Sprintf("loss %.3f", loss))
			},
			Point: func(p train.Point) {
				if p.Metrics != nil {
					r.note("%s, lr %g, step %d: loss %.4f, %s %.4f", name, p.LR, p.Step, p.Loss, p.Metrics[0].Name, p.Metrics[0].Value)
				}
			},
			Note: r.Observer.Note,
		},
	}
	best, result, err := t.Run(ctx)
	if err != nil {
		return nil, err
	}
	m := &Made{Metrics: result.Metrics, LR: result.LR}
	rows, err := train.NewEvaluator(r.Pool, r.Config.Train.Precision()).Rows(ctx, best, r.Data.Spec, r.Data.Dev, nil)
	if err != nil {
		return nil, err
	}
	m.Rows = &rows
	m.Low, m.High = rows.Interval()
	o, err := checkpoint.CreateOutput(path, true)
	if err != nil {
		return nil, err
	}
	defer o.Abort()
	if err := r.Data.Save(best, o, from); err != nil {
		return nil, err
	}
	if err := o.Commit(); err != nil {
		return nil, err
	}
	return m, r.inspect(m, path)
}

// inspect notes the size of a model that was written.
func (r *Runner) inspect(m *Made, path string) error {
	c, err := convert.InspectPath(path)
	if err != nil {
		return err
	}
	m.Parameters, m.Bytes, m.MLPFLOPs, m.Width = c.Parameters, c.Bytes, c.MLPFLOPs, c.Blocks[0].Width
	return nil
}

// curve returns the widths that may be tried, from wide to narrow, and what each
// leaves of the outputs' error, the mean of the blocks. Of a goal that names one
// width there is no choice.
func (r *Runner) curve(ctx context.Context, original *Made) (widths []int, errs []float64, err error) {
	dir, err := checkpoint.OpenDir(original.Path)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	if widths, err = r.Goal.widths(dir); err != nil || len(widths) == 1 {
		return widths, []float64{0}, err
	}
	errs, err = stage(r, "curve", func() ([]float64, error) {
		r.note("what each width would lose is read from the blocks' error curves")
		opt := r.fuseOptions()
		done, err := opt.Calibrate(ctx, r.Pool, dir, &r.Data.Calibration, false)
		if err != nil {
			return nil, err
		}
		defer done()
		curves, err := convert.Curves(ctx, dir, opt, widths, func(done, total int) { r.progress("error curves", "block", done, total, "") })
		if err != nil {
			return nil, err
		}
		errs := make([]float64, len(widths))
		for _, c := range curves {
			for i, e := range c.Errors {
				errs[i] += e / float64(len(curves))
			}
		}
		return errs, nil
	})
	return widths, errs, err
}

// widths lists the widths that a goal leaves to be tried, from wide to narrow.
func (g Goal) widths(original *checkpoint.Dir) ([]int, error) {
	c, err := convert.Inspect(original)
	if err != nil {
		return nil, err
	}
	full, mlps := c.Blocks[0].Width, 0
	for _, b := range c.Blocks {
		if b.Width != full {
			return nil, fmt.Errorf("%s: expected one width in all blocks, found %d in %s and %d in %s", original.Path, full, c.Blocks[0].Name, b.Width, b.Name)
		}
		mlps += b.Parameters
	}
	switch {
	case g.Width > full:
		return nil, fmt.Errorf("width: expected at most the original's %d, found %d", full, g.Width)
	case g.Width > 0:
		return []int{g.Width}, nil
	case g.Size > 0:
		share := 1 - (1-g.Size)*float64(c.Parameters)/float64(mlps) // of the units
		width := int(math.Floor(share * float64(full)))
		if width < 1 {
			return nil, fmt.Errorf("size: expected at least %.2f, which is left without MLPs, found %g: the rest is embeddings and attention", 1-float64(mlps)/float64(c.Parameters)+0.005, g.Size)
		}
		return []int{width}, nil
	}
	const narrowest = 64 // a 64th of the units
	step := 1
	if full >= 16*narrowest {
		step = 16 // whole vectors
	}
	var widths []int
	for w := full; w > full/narrowest; w /= 2 {
		widths = append(widths, w*3/4/step*step, w/2/step*step)
	}
	return slices.DeleteFunc(slices.Compact(widths), func(w int) bool { return w < 1 }), nil
}

// first is where the search begins: a quarter of the units, the paper's choice.
func (r *Runner) first(widths []int) int { return min(3, len(widths)-1) }

// export writes a model as what plain transformers loads.
func (r *Runner) export(ctx context.Context, m *Made) (*convert.Exported, error) {
	dir, err := checkpoint.OpenDir(m.Path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return convert.Export(ctx, dir, r.Out, convert.ExportOptions{Overwrite: r.Overwrite, Pool: r.Pool, Sample: r.Sample})
}

// speeds measures how fast two models score held-out rows, at most 256: each three
// times, in turns, the fastest counts.
func (r *Runner) speeds(ctx context.Context, original, small *Made) error {
	paths := []string{original.Path, r.Out}
	var models [2]*model.Model
	head := r.Head
	head.NewHead = false
	for i, path := range paths {
		dir, err := checkpoint.OpenDir(path)
		if err != nil {
			return err
		}
		models[i], _, err = model.Load(dir, head)
		dir.Close()
		if err != nil {
			return err
		}
	}
	const most, rounds = 256, 3
	rows := r.Data.Dev
	if rows.Len() > most {
		rows = rows.Subset(task.Shuffle(0, 0, rows.Len())[:most])
	}
	e := train.NewEvaluator(r.Pool, kernel.FP32)
	for round := range rounds {
		for i, m := range []*Made{original, small} {
			start := time.Now()
			if _, err := e.Rows(ctx, models[i], r.Data.Spec, rows, nil); err != nil {
				return err
			}
			m.RowsPerSecond = max(m.RowsPerSecond, float64(rows.Len())/time.Since(start).Seconds())
			r.progress("speed", "pass", 2*round+i+1, 2*rounds, "")
		}
	}
	return nil
}
