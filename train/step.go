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
	s.in = InputOf(b)
	s.tape.Reset(s.Optimizer.Steps())
	s.Model.ReadRows(&s.in, s.catchUp)
	s.Model.ZeroGrad()
	loss := s.objective.loss(s.tape, s.Model, &s.in, b.Labels)
	s.tape.Backward()
	s.Optimizer.Step(lr)
	return loss
}
