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
	Loss      nn.Loss
	tape      *nn.Tape
	distance  *distance      // of tuning; nil: the loss is the labels'
	teacher   *logitsTeacher // of distillation; nil: the labels' alone
	in        model.Input
	catchUp   func(table *nn.Weight, rows []int32)
}

// NewStepper prepares a model for training. The seed selects dropout masks.
func NewStepper(pool *kernel.Pool, m *model.Model, cfg OptimizerConfig, prec kernel.Precision, seed uint64) *Stepper {
	tape := nn.NewTape(pool)
	tape.Train, tape.Prec, tape.Seed = true, prec, seed
	s := &Stepper{Model: m, Optimizer: NewOptimizer(pool, m.Params, cfg), Loss: LossOf(m), tape: tape}
	s.catchUp = s.Optimizer.CatchUp
	return s
}

// Step trains on one batch at the given learning rate and returns its loss
// before the update.
func (s *Stepper) Step(b *task.Batch, lr float64) float64 {
	s.in = InputOf(b)
	s.tape.Reset(s.Optimizer.Steps())
	s.Model.ReadRows(&s.in, s.catchUp)
	s.Model.ZeroGrad()
	var loss float64
	switch {
	case s.distance != nil:
		loss = s.distance.loss(s.tape, s.Model, &s.in)
	case s.teacher != nil:
		loss = s.teacher.loss(s.tape, s.Model, s.Loss, &s.in, b.Labels)
	default:
		loss = s.Model.Loss(s.tape, s.Loss, &s.in, b.Labels)
	}
	s.tape.Backward()
	s.Optimizer.Step(lr)
	return loss
}
