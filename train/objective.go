package train

import (
	"context"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// Objective is what training makes smaller and what its results are judged by:
// Labels, *Distillation or *Tuning. Its JSON is the run's record of it.
type Objective interface {
	// main is the metric of score that says which weights are best.
	main(spec task.Spec) string
	// begin checks that the student can learn this, and freezes what does not.
	begin(pool *kernel.Pool, prec kernel.Precision, student *model.Model) error
	// loss runs a batch, the student on its tape, and sets the gradients of its
	// outputs when the tape records.
	loss(tape *nn.Tape, student *model.Model, in *model.Input, labels []float32) float64
	// terms is the number of terms whose mean loss is over a batch.
	terms(student *model.Model, in *model.Input) float64
	// held is the memory that it works in besides the student's tape, in bytes.
	held() int64
	// score judges the student on dev data, once begun.
	score(ctx context.Context, e *Evaluator, student *model.Model, data *Data, progress func(done, total int)) ([]task.Metric, error)
}

// Labels is ordinary fine-tuning: the loss is the labels', or of a language model
// that of the next tokens.
type Labels struct{}

func (Labels) main(spec task.Spec) string { return spec.Main }

func (Labels) begin(*kernel.Pool, kernel.Precision, *model.Model) error { return nil }

func (Labels) loss(tape *nn.Tape, student *model.Model, in *model.Input, labels []float32) float64 {
	return student.Loss(tape, LossOf(student), in, labels)
}

func (Labels) terms(student *model.Model, in *model.Input) float64 {
	if student.Config.Head != model.LanguageModel {
		return float64(len(in.Offsets) - 1)
	}
	n := 0
	for _, id := range in.Targets {
		if id >= 0 {
			n++
		}
	}
	return float64(n)
}

func (Labels) held() int64 { return 0 }

func (Labels) score(ctx context.Context, e *Evaluator, student *model.Model, data *Data, progress func(done, total int)) ([]task.Metric, error) {
	return e.Score(ctx, student, data.Spec, data.Dev, progress)
}
