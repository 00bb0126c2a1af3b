package train

import (
	"context"
	"time"

	"mlpfusion/task"
)

// Plan is what a run will take.
type Plan struct {
	Examples int   `json:"examples"`
	Steps    int   `json:"steps"`  // of a learning rate
	Tokens   int64 `json:"tokens"` // read in them
	Rates    int   `json:"learning_rates"`
	// Seconds are those of all steps, evaluations left out, as the steps that were tried
	// say.
	SecondsPerStep float64 `json:"seconds_per_step"`
	Seconds        float64 `json:"seconds"`
	Memory         *Memory `json:"memory"` // as it is without trying
	// Otherwise is what Memory.Step would be with layers that run twice if they run once,
	// and the other way round; 0 where they cannot.
	Otherwise int64 `json:"step_bytes_otherwise,omitempty"`
}

// Plan counts what a run will read and tries a few of its steps, among them the one of
// the most tokens, so that the process has then had the memory that training takes. It
// writes nothing.
func (r *Runner) Plan(ctx context.Context) (*Plan, error) {
	if r.Objective == nil {
		r.Objective = Labels{}
	}
	m, err := r.Load()
	if err != nil {
		return nil, err
	}
	p := &Plan{Examples: r.Data.Train.Len(), Steps: r.total(), Rates: len(r.Config.LR)}
	if p.Memory, err = r.Memory(m); err != nil {
		return nil, err
	}
	if m.Recompute(!r.Config.Recompute) == nil {
		if p.Otherwise, err = r.stepMemory(m); err != nil {
			return nil, err
		}
		_ = m.Recompute(r.Config.Recompute) // it can
	}
	if err := r.beginWith(m); err != nil {
		return nil, err
	}
	passes := make([]task.Batch, max(1, r.Config.Accumulate))
	order := task.Shuffle(r.Config.Seed, 0, r.Data.Train.Len())
	per := r.epochSteps()
	var all int64 // of an epoch
	longest, most := 0, 0
	for step := range per {
		_, tokens := r.fill(nil, passes, order, step)
		if all += int64(tokens); tokens > most {
			longest, most = step, tokens
		}
	}
	p.Tokens = all * int64(p.Steps) / int64(per)
	const tried = 3
	var seconds float64
	var read int64
	for i := range tried + 1 { // the first makes its memory
		step := (longest + i) % per
		batches, tokens := r.fill(nil, passes, order, step)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		r.stepper.Accumulate(batches, 0)
		if i > 0 {
			seconds += time.Since(start).Seconds()
			read += int64(tokens)
		}
	}
	p.Seconds = seconds / float64(max(1, read)) * float64(p.Tokens) * float64(p.Rates)
	p.SecondsPerStep = p.Seconds / float64(max(1, p.Steps*p.Rates))
	return p, nil
}
