package train

import (
	"context"
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// TuneOptimizer is Adam as tuning uses it: the paper's constants without decay
// and without clipping.
var TuneOptimizer = OptimizerConfig{Beta1: PaperOptimizer.Beta1, Beta2: PaperOptimizer.Beta2, Eps: PaperOptimizer.Eps}

// NewTuner returns a stepper for layer-wise task-specific tuning (the paper's
// optional step, docs/method.md): the student's fused MLPs learn to give the hidden
// states of the teacher, the original. The loss is the mean over layers of the
// squared difference of hidden states, summed over the hidden size and averaged
// over tokens. All other weights are frozen, labels are not looked at, and
// dropout is off in both models.
//
// Each batch passes through both models; no state outlives its step.
func NewTuner(pool *kernel.Pool, student, teacher *model.Model, cfg OptimizerConfig, prec kernel.Precision) (*Stepper, error) {
	a, b := teacher.Config, student.Config
	if a.Type != b.Type || a.Hidden != b.Hidden || a.Layers != b.Layers || a.Vocab != b.Vocab {
		return nil, fmt.Errorf("tune: expected the model that was fused (%s, %d layers of hidden size %d, vocabulary %d), found %s, %d, %d, %d",
			b.Type, b.Layers, b.Hidden, b.Vocab, a.Type, a.Layers, a.Hidden, a.Vocab)
	}
	trained := map[*nn.Weight]bool{}
	for _, blk := range student.Blocks {
		if _, fused := student.Config.Blocks[blk.Name]; !fused {
			continue
		}
		for _, l := range blk.MLP.Linears() {
			trained[l.W], trained[l.B] = true, true
		}
	}
	if len(trained) == 0 {
		return nil, fmt.Errorf("tune: expected a fused model, found no fused block")
	}
	for _, w := range student.Weights {
		w.Frozen = !trained[w]
	}
	student.Config.Dropout = model.Dropout{}
	s := NewStepper(pool, student, cfg, prec, 0)
	s.distance = newDistance(pool, teacher, prec)
	return s, nil
}

// distance measures how far a model's hidden states lie from the teacher's.
type distance struct {
	teacher          *model.Model
	tape             *nn.Tape // the teacher's
	student          *nn.Tape // for scores
	original, hidden model.Output
	batch            task.Batch
	in               model.Input
}

func newDistance(pool *kernel.Pool, teacher *model.Model, prec kernel.Precision) *distance {
	d := &distance{teacher: teacher, tape: nn.NewTape(pool), student: nn.NewTape(pool)}
	d.tape.Prec, d.student.Prec = prec, prec
	d.original = model.Output{AllTokens: true, KeepHidden: true}
	d.hidden = d.original
	return d
}

// loss runs both models on a batch, the student on its tape, and sets the
// gradients of the student's hidden states when its tape records.
func (d *distance) loss(tape *nn.Tape, student *model.Model, in *model.Input) (sum float64) {
	d.tape.Reset(0)
	d.teacher.ForwardAll(d.tape, in, &d.original)
	student.ForwardAll(tape, in, &d.hidden)
	layers := len(d.hidden.Hidden) - 1 // before them the embeddings
	for l := 1; l <= layers; l++ {
		sum += tape.Match(d.hidden.Hidden[l], d.original.Hidden[l], 1/float64(layers))
	}
	return sum
}

// score is the loss over a data set, averaged over its tokens.
func (d *distance) score(ctx context.Context, student *model.Model, data *task.Encoded, progress func(done, total int)) ([]task.Metric, error) {
	var sum float64
	done := 0
	for _, rows := range task.LengthSorted(data, evalTokens) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data.Fill(&d.batch, rows)
		d.in = InputOf(&d.batch)
		d.student.Reset(0)
		sum += d.loss(d.student, student, &d.in) * float64(d.batch.Tokens()) / float64(data.Tokens())
		done += len(rows)
		if progress != nil {
			progress(done, data.Len())
		}
	}
	return []task.Metric{{Name: task.Distance, Value: sum}}, nil
}
