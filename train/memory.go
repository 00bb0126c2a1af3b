package train

import (
	"context"
	"runtime"
	"runtime/debug"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// Memory is what a run takes, in bytes.
type Memory struct {
	Before     int64 `json:"before_bytes"`  // the process, with the model and the data
	Weights    int64 `json:"weights_bytes"` // of that the model's, and as float32
	Float32    int64 `json:"float32_bytes"`
	Parameters int64 `json:"parameters_bytes"` // gradients and moments of what is trained
	Step       int64 `json:"step_bytes"`       // activations and their gradients, in the pass of the most tokens
	Evaluation int64 `json:"evaluation_bytes"` // of the dev set
}

// Total is all of it: what a step took is kept while the dev set is evaluated.
func (m *Memory) Total() int64 { return m.Before + m.Parameters + m.Step + m.Evaluation }

// Memory says what training m, which Load has made, will take at its peak. It goes through
// the pass of the most tokens, and through the evaluation, without computing anything.
func (r *Runner) Memory(m *model.Model) (*Memory, error) {
	before, err := r.before(m)
	if err != nil {
		return nil, err
	}
	step, err := r.stepMemory(m)
	if err != nil {
		return nil, err
	}
	before.Step = step
	return before, nil
}

// before is Memory without the step.
func (r *Runner) before(m *model.Model) (*Memory, error) {
	if r.Objective == nil {
		r.Objective = Labels{}
	}
	if err := r.prepare(m); err != nil {
		return nil, err
	}
	debug.FreeOSMemory() // what loading has left behind
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	mem := &Memory{Before: int64(now.Sys - now.HeapReleased)}
	idle := kernel.NewIdlePool(r.Pool.Workers())
	if err := r.Objective.begin(idle, r.Config.Precision(), m); err != nil {
		return nil, err
	}
	copies := 3 // the gradient and two moments
	if r.Config.Optimizer.SGD {
		copies = 1
	}
	for _, w := range m.Weights {
		mem.Weights += 4*int64(len(w.Data)+len(w.Factors)) + 2*int64(len(w.Half)) + int64(len(w.Int8))
		mem.Float32 += 4 * int64(w.Rows*w.Cols)
	}
	for _, p := range m.Params {
		if !p.Weight.Frozen {
			mem.Parameters += 4 * int64(copies*p.Len())
		}
	}
	var err error
	mem.Evaluation, err = r.evaluationMemory(m, idle)
	return mem, err
}

// evaluationMemory is what scoring the dev set takes.
func (r *Runner) evaluationMemory(m *model.Model, idle *kernel.Pool) (int64, error) {
	if !r.Data.Spec.LanguageModel() { // its batches are small, but the matrices are laid out for them
		word := int64(4)
		if r.Config.BF16 {
			word = 2
		}
		var n int64
		for _, w := range m.Weights {
			if w.Rows > 1 && w.Touched == nil {
				n += word * int64(w.Rows*w.Cols)
			}
		}
		return n, nil
	}
	e := NewEvaluator(idle, r.Config.Precision())
	_, err := r.Objective.score(context.Background(), e, m, &r.Data, nil)
	return e.whole.tape.Bytes() + r.Objective.held(), err
}

// stepMemory is what the pass of the most tokens takes of a model that is prepared.
func (r *Runner) stepMemory(m *model.Model) (int64, error) {
	idle := kernel.NewIdlePool(r.Pool.Workers())
	if err := r.Objective.begin(idle, r.Config.Precision(), m); err != nil {
		return 0, err
	}
	var b task.Batch
	r.Data.Train.Fill(&b, r.longestPass())
	in := InputOf(&b)
	tape := nn.NewTape(idle)
	tape.Train, tape.Prec = true, r.Config.Precision()
	m.ZeroGrad()
	r.Objective.loss(tape, m, &in, b.Labels)
	tape.Backward()
	return tape.Bytes() + idle.Bytes() + r.Objective.held(), nil
}

// longestPass is the rows of the pass of the most tokens.
func (r *Runner) longestPass() (rows []int32) {
	data, n := r.Data.Train, r.Config.Batch
	most := -1
	for epoch := range max(1, r.Config.Epochs) {
		order := task.Shuffle(r.Config.Seed, epoch, data.Len())
		for from := 0; from < len(order); from += n {
			pass, tokens := order[from:min(len(order), from+n)], 0
			for _, row := range pass {
				tokens += data.Length(int(row))
			}
			if tokens > most {
				rows, most = pass, tokens
			}
		}
	}
	return rows
}

// Fit chooses passes of a step, and whether layers run again for their gradients, so that
// training m takes at most so many bytes: the largest passes that do, with layers that run
// once if that can be. What it chose stands in Config; it fits unless the least that can be
// chosen takes more.
func (r *Runner) Fit(m *model.Model, limit int64) (mem *Memory, fits bool, err error) {
	if mem, err = r.before(m); err != nil {
		return nil, false, err
	}
	mem.Step, fits, err = r.fit(m, limit-mem.Total())
	return mem, fits, err
}

// fit is Fit for a step's memory, which it returns.
func (r *Runner) fit(m *model.Model, room int64) (taken int64, fits bool, err error) {
	c := &r.Config
	rows := c.StepRows()
	for {
		fit := 0
		for batch := 1; batch <= rows; batch++ {
			if rows%batch > 0 {
				continue
			}
			c.Batch, c.Accumulate = batch, rows/batch
			step, err := r.stepMemory(m)
			if err != nil {
				return 0, false, err
			}
			debug.FreeOSMemory() // or much would be asked of the system, though not used
			if batch == 1 || step <= room {
				taken = step
			}
			if step > room {
				break
			}
			fit = batch
		}
		if fit > 0 {
			c.Batch, c.Accumulate = fit, rows/fit
			return taken, true, nil
		}
		if c.Recompute || m.Recompute(true) != nil {
			return taken, false, nil
		}
		c.Recompute = true
	}
}
