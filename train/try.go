package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
	"mlpfusion/task"
)

// try trains with one learning rate, from where the state says.
func (r *Runner) try(ctx context.Context) error {
	m, err := r.begin()
	if err != nil {
		return err
	}
	passes := make([]task.Batch, max(1, r.Config.Accumulate))
	var batches []*task.Batch
	var order []int32
	total, per := r.total(), r.epochSteps()
	lr := r.Config.LR[r.state.Try]
	warmup := int(math.Ceil(r.Config.Warmup * float64(total)))
	for r.state.Step < total && !r.tired() || r.state.Pending {
		if r.state.Pending {
			if err := r.afterStep(ctx, total, per); err != nil {
				return err
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(r.snapshot(), err)
		}
		step := r.state.Step
		if order == nil || step%per == 0 {
			order = task.Shuffle(r.Config.Seed, step/per, r.Data.Train.Len())
		}
		var tokens int
		batches, tokens = r.fill(batches[:0], passes, order, step%per)
		m.ClearUsage()
		start := time.Now()
		loss := r.stepper.Accumulate(batches, lr*r.Config.Schedule.Factor(step, warmup, total))
		r.timing.seconds += time.Since(start).Seconds()
		r.timing.steps++
		r.timing.tokens += int64(tokens)
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return fmt.Errorf("step %d: expected a finite loss, found %v: the learning rate %g is too large for this model", step+1, loss, lr)
		}
		r.state.count(m, loss, tokens, r.stepper.Optimizer.Norm())
		if r.Observer.Step != nil {
			r.Observer.Step(r.state.Step, total, loss)
		}
	}
	return nil
}

// fill makes the batches of an epoch's step, appended to batches, of the rows in their
// order.
func (r *Runner) fill(batches []*task.Batch, passes []task.Batch, order []int32, step int) (_ []*task.Batch, tokens int) {
	from := step * r.Config.StepRows()
	for i := 0; i < len(passes) && from < len(order); i, from = i+1, from+r.Config.Batch {
		r.Data.Train.Fill(&passes[i], order[from:min(len(order), from+r.Config.Batch)])
		batches = append(batches, &passes[i])
		tokens += passes[i].Tokens()
	}
	return batches, tokens
}

// tired tells whether the try has waited long enough for a better evaluation.
func (r *Runner) tired() bool { return r.Config.Patience > 0 && r.state.Waited >= r.Config.Patience }

// begin makes the model and the stepper as they are at the state's step.
func (r *Runner) begin() (*model.Model, error) {
	m, err := r.Load()
	if err != nil {
		return nil, err
	}
	return m, r.beginWith(m)
}

func (r *Runner) beginWith(m *model.Model) (err error) {
	if err := r.prepare(m); err != nil {
		return err
	}
	if r.stepper, err = NewStepperFor(r.Objective, r.Pool, m, r.Config.Optimizer, r.Config.Precision(), r.Config.Seed); err != nil {
		return err
	}
	if r.state.Step > 0 {
		if err := restore(filepath.Join(r.Dir, snapshotFile), &r.state, m, r.stepper.Optimizer); err != nil {
			return err
		}
		r.note("going on at step %d of %d", r.state.Step, r.total())
	}
	return nil
}

// prepare gives the model what the configuration asks of it.
func (r *Runner) prepare(m *model.Model) error {
	m.RouterLosses = r.Config.TrainRouters
	if !r.Config.TrainRouters {
		m.FreezeRouters()
	} else if len(m.Usage()) == 0 {
		return fmt.Errorf("train routers: expected a model with mixtures of experts, found a %s without", m.Config.Type)
	}
	if r.Config.Recompute {
		return m.Recompute(true)
	}
	return nil
}

// count takes note of a step.
func (s *runState) count(m *model.Model, loss float64, tokens int, norm float64) {
	seen, dropped := m.Routed()
	s.Seen += seen
	s.Dropped += dropped
	s.Step++
	s.Tokens += int64(tokens)
	s.Loss += loss
	s.Count++
	s.Norm = norm
	s.Pending = true
}

// afterStep writes a point, evaluates and saves when it is time.
func (r *Runner) afterStep(ctx context.Context, total, per int) error {
	step := r.state.Step
	every := r.Config.EvalEvery
	if every == 0 {
		every = per
	}
	evaluate := step == total || step%every == 0
	const pointEvery = 10
	if evaluate || step%pointEvery == 0 {
		p := Point{LR: r.Config.LR[r.state.Try], Step: step, Epoch: float64(step) / float64(per), Loss: r.state.Loss / float64(r.state.Count), Norm: r.state.Norm}
		m := r.stepper.Model
		if r.state.Dropped > 0 {
			p.Dropped = float64(r.state.Dropped) / float64(r.state.Seen+r.state.Dropped)
		}
		for i := range m.RouterZLoss {
			p.RouterZ += m.RouterZLoss[i]
			p.Balance += m.BalanceLoss[i]
		}
		if evaluate {
			if err := r.evaluate(ctx, &p); err != nil {
				return err
			}
		}
		if err := r.write(p); err != nil {
			return err
		}
		r.state.Loss, r.state.Count, r.state.Seen, r.state.Dropped = 0, 0, 0, 0
	}
	r.state.Pending = false
	if evaluate || r.Config.SnapshotEvery > 0 && step%r.Config.SnapshotEvery == 0 {
		return r.snapshot()
	}
	return nil
}

// evaluate scores the dev set and keeps the weights when they are the best yet.
func (r *Runner) evaluate(ctx context.Context, p *Point) error {
	r.stepper.Optimizer.Flush()
	m := r.stepper.Model
	var err error
	p.Metrics, err = r.Objective.score(ctx, NewEvaluator(r.Pool, r.Config.Precision()), m, &r.Data, r.Observer.Eval)
	if err == nil && r.Sample != nil {
		p.Samples, err = r.Sample(ctx, m)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(r.snapshot(), err)
		}
		return err
	}
	r.state.Waited++
	if merit := r.merit(p.Metrics); r.state.Merit == nil || merit > *r.state.Merit {
		r.state.Merit, r.state.Waited = &merit, 0
	}
	if r.tired() {
		r.note("no better evaluation in %d: stopped at step %d", r.state.Waited, p.Step)
	}
	best := r.state.Best
	if best != nil && r.merit(p.Metrics) <= r.merit(best.Metrics) {
		return nil
	}
	if err := checkpoint.SaveSnapshot(filepath.Join(r.Dir, bestFile), p, weights(m)); err != nil {
		return err
	}
	kept := *p
	r.state.Best = &kept
	return nil
}

// merit says of two scores which is the better: the larger.
func (r *Runner) merit(metrics []task.Metric) float64 {
	main := r.Objective.main(r.Data.Spec)
	for _, m := range metrics {
		switch {
		case m.Name == main && task.LowerIsBetter(m.Name):
			return -m.Value
		case m.Name == main:
			return m.Value
		}
	}
	return math.Inf(-1)
}

func (r *Runner) write(p Point) error {
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	n, err := r.metrics.Write(append(line, '\n'))
	r.state.Metrics += int64(n)
	if r.Observer.Point != nil {
		r.Observer.Point(p)
	}
	return err
}

func (r *Runner) note(format string, args ...any) {
	if r.Observer.Note != nil {
		r.Observer.Note(format, args...)
	}
}
