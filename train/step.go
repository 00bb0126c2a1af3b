package train

import (
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// Stepper takes training steps on a model: forward, backward, update.
type Stepper struct {
	Model     *model.Model
	Optimizer *Optimizer
	objective Objective
	tape      *nn.Tape
	in        model.Input
	one       [1]*task.Batch
	catchUp   func(table *nn.Weight, rows []int32)
}

// NewStepper prepares a model for training on labels. The seed selects dropout
// masks.
func NewStepper(pool *kernel.Pool, m *model.Model, cfg OptimizerConfig, prec kernel.Precision, seed uint64) *Stepper {
	tape := nn.NewTape(pool)
	tape.Train, tape.Prec, tape.Seed = true, prec, seed
	s := &Stepper{Model: m, Optimizer: NewOptimizer(pool, m.Params, cfg), objective: Labels{}, tape: tape}
	s.catchUp = s.Optimizer.CatchUp
	return s
}

// NewStepperFor prepares a model for training on an objective, and the objective
// for this model.
func NewStepperFor(o Objective, pool *kernel.Pool, m *model.Model, cfg OptimizerConfig, prec kernel.Precision, seed uint64) (*Stepper, error) {
	if err := o.begin(pool, prec, m); err != nil {
		return nil, err
	}
	s := NewStepper(pool, m, cfg, prec, seed)
	s.objective = o
	return s, nil
}

// Step trains on one batch at the given learning rate and returns its loss
// before the update.
func (s *Stepper) Step(b *task.Batch, lr float64) float64 {
	s.one[0] = b
	return s.Accumulate(s.one[:], lr)
}

// Accumulate is Step for several batches that are one: their gradients are added up in
// passes of their own, each with its share of what the loss is the mean of, so that the
// step is that of all rows at once up to rounding, and dropout's masks.
func (s *Stepper) Accumulate(batches []*task.Batch, lr float64) (loss float64) {
	var all float64
	for _, b := range batches {
		s.in = InputOf(b)
		all += s.objective.terms(s.Model, &s.in)
	}
	s.Model.ZeroGrad()
	for i, b := range batches {
		s.in = InputOf(b)
		s.tape.Reset(s.Optimizer.Steps()*len(batches) + i)
		s.tape.Share = 1
		if all > 0 { // else there is nothing to predict
			s.tape.Share = s.objective.terms(s.Model, &s.in) / all
		}
		if s.tape.Share == 0 {
			continue
		}
		s.Model.ReadRows(&s.in, s.catchUp)
		loss += s.tape.Share * s.objective.loss(s.tape, s.Model, &s.in, b.Labels)
		s.tape.Backward()
	}
	s.Optimizer.Step(lr)
	return loss
}
