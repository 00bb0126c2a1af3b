package train

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// Distillation says how a teacher's logits share in the loss, see
// nn.Tape.Distill.
type Distillation struct {
	Teacher     string  `json:"teacher"` // its name, for the run's record
	Weight      float64 `json:"weight"`  // of the teacher's loss, 0 … 1; at 1 labels count for nothing
	Temperature float64 `json:"temperature"`
}

// NewDistiller returns a stepper for fine-tuning with a teacher: a model with a
// head for the same task, such as the original fine-tuned, whose logits the
// student learns beside the labels. Each batch passes through both models; the
// teacher has no dropout.
func NewDistiller(pool *kernel.Pool, student, teacher *model.Model, d Distillation, cfg OptimizerConfig, prec kernel.Precision, seed uint64) (*Stepper, error) {
	a, b := teacher.Config, student.Config
	switch {
	case b.Head == model.LanguageModel:
		return nil, fmt.Errorf("distillation: expected a classifier or a regression, found a language model")
	case !(d.Weight >= 0 && d.Weight <= 1):
		return nil, fmt.Errorf("distillation: expected a weight from 0 to 1, found %g", d.Weight)
	case !(d.Temperature > 0):
		return nil, fmt.Errorf("distillation: expected a temperature above 0, found %g", d.Temperature)
	case a.Vocab != b.Vocab:
		return nil, fmt.Errorf("distillation: expected a teacher with the student's vocabulary of %d, found %d", b.Vocab, a.Vocab)
	case a.Head != b.Head || len(a.Labels) != len(b.Labels):
		return nil, fmt.Errorf("distillation: expected a teacher with the student's labels %v, found %v", b.Labels, a.Labels)
	case teacher.MaxLength() < student.MaxLength():
		return nil, fmt.Errorf("distillation: expected a teacher that reads %d tokens, found %d", student.MaxLength(), teacher.MaxLength())
	}
	s := NewStepper(pool, student, cfg, prec, seed)
	s.teacher = &logitsTeacher{Distillation: d, model: teacher, tape: nn.NewTape(pool)}
	s.teacher.tape.Prec = prec
	return s, nil
}

// logitsTeacher is the teacher of a distillation.
type logitsTeacher struct {
	Distillation
	model *model.Model
	tape  *nn.Tape
}

// loss runs both models on a batch, the student on its tape.
func (t *logitsTeacher) loss(tape *nn.Tape, student *model.Model, kind nn.Loss, in *model.Input, labels []float32) float64 {
	t.tape.Reset(0)
	theirs := t.model.Forward(t.tape, in)
	return tape.Distill(kind, student.Forward(tape, in), theirs, labels, t.Weight, t.Temperature)
}
