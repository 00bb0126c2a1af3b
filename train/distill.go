package train

import (
	"errors"
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// Distillation is fine-tuning with a teacher: a model with a head for the same
// task, such as the original fine-tuned, whose logits the student learns beside
// the labels, see nn.Tape.Distill; of language models the predictions of the next token. Each batch passes through both models; the
// teacher has no dropout.
type Distillation struct {
	Labels      `json:"-"`
	Model       *model.Model `json:"-"`       // the teacher
	Teacher     string       `json:"teacher"` // its name, for the run's record
	Weight      float64      `json:"weight"`  // of the teacher's loss, 0 … 1; at 1 labels count for nothing
	Temperature float64      `json:"temperature"`
	Blocks      bool         `json:"blocks,omitempty"` // fused blocks alone are trained, without dropout

	tape *nn.Tape // the teacher's
}

func (d *Distillation) begin(pool *kernel.Pool, prec kernel.Precision, student *model.Model) error {
	a, b := d.Model.Config, student.Config
	switch {
	case !(d.Weight >= 0 && d.Weight <= 1):
		return fmt.Errorf("distillation: expected a weight from 0 to 1, found %g", d.Weight)
	case !(d.Temperature > 0):
		return fmt.Errorf("distillation: expected a temperature above 0, found %g", d.Temperature)
	case a.Vocab != b.Vocab:
		return fmt.Errorf("distillation: expected a teacher with the student's vocabulary of %d, found %d", b.Vocab, a.Vocab)
	case a.Head != b.Head || b.Head != model.LanguageModel && len(a.Labels) != len(b.Labels):
		return fmt.Errorf("distillation: expected a teacher with the student's labels %v, found %v", b.Labels, a.Labels)
	case d.Model.MaxLength() < student.MaxLength():
		return fmt.Errorf("distillation: expected a teacher that reads %d tokens, found %d", student.MaxLength(), d.Model.MaxLength())
	case student.RouterLosses:
		return errors.New("train routers: expected no teacher, whose loss does not know the routers' losses")
	}
	if d.Blocks {
		if err := freezeAllButFused(student); err != nil {
			return fmt.Errorf("distillation: %w", err)
		}
		student.Config.Dropout = model.Dropout{}
	}
	d.tape = nn.NewTape(pool)
	d.tape.Prec = prec
	return nil
}

func (d *Distillation) terms(student *model.Model, in *model.Input) float64 {
	return Labels{}.terms(student, in)
}

func (d *Distillation) held() int64 { return d.tape.Bytes() }

func (d *Distillation) loss(tape *nn.Tape, student *model.Model, in *model.Input, labels []float32) float64 {
	d.tape.Reset(0)
	return student.Distill(tape, LossOf(student), in, labels, d.Model, d.tape, d.Weight, d.Temperature)
}
