package train

import (
	"context"
	"errors"
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// TuneOptimizer is Adam as tuning uses it: the paper's constants without decay
// and without clipping.
var TuneOptimizer = OptimizerConfig{Beta1: PaperOptimizer.Beta1, Beta2: PaperOptimizer.Beta2, Eps: PaperOptimizer.Eps}

// Tuning is layer-wise task-specific tuning (the paper's optional step,
// docs/method.md): the student's fused MLPs learn to give the hidden states of the
// teacher, the original. The loss is the mean over layers of the squared difference
// of hidden states, summed over the hidden size and averaged over tokens; on the
// dev set it is the metric task.Distance. All other weights are frozen, labels are
// not looked at, and dropout is off in both models.
//
// Each batch passes through both models; no state outlives its step.
type Tuning struct {
	Teacher *model.Model `json:"-"`

	theirs, ours     *nn.Tape // ours for scores
	original, hidden model.Output
}

func (t *Tuning) main(task.Spec) string { return task.Distance }

func (t *Tuning) begin(pool *kernel.Pool, prec kernel.Precision, student *model.Model) error {
	a, b := t.Teacher.Config, student.Config
	if a.Type != b.Type || a.Hidden != b.Hidden || a.Layers != b.Layers || a.Vocab != b.Vocab {
		return fmt.Errorf("tune: expected the model that was fused (%s, %d layers of hidden size %d, vocabulary %d), found %s, %d, %d, %d",
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
		return errors.New("tune: expected a fused model, found no fused block")
	}
	for _, w := range student.Weights {
		w.Frozen = !trained[w]
	}
	student.Config.Dropout = model.Dropout{}
	t.theirs, t.ours = nn.NewTape(pool), nn.NewTape(pool)
	t.theirs.Prec, t.ours.Prec = prec, prec
	t.original = model.Output{AllTokens: true, KeepHidden: true}
	t.hidden = t.original
	return nil
}

func (t *Tuning) loss(tape *nn.Tape, student *model.Model, in *model.Input, _ []float32) (sum float64) {
	t.theirs.Reset(0)
	t.Teacher.ForwardAll(t.theirs, in, &t.original)
	student.ForwardAll(tape, in, &t.hidden)
	layers := len(t.hidden.Hidden) - 1 // before them the embeddings
	for l := 1; l <= layers; l++ {
		sum += tape.SquaredDistance(t.hidden.Hidden[l], t.original.Hidden[l], 1/float64(layers))
	}
	return sum
}

func (t *Tuning) terms(_ *model.Model, in *model.Input) float64 { return float64(len(in.IDs)) }

// score is the loss over the dev set, averaged over its tokens.
func (t *Tuning) score(ctx context.Context, _ *Evaluator, student *model.Model, data *Data, progress func(done, total int)) ([]task.Metric, error) {
	var sum float64
	var b task.Batch
	done, dev := 0, data.Dev
	for _, rows := range task.LengthSorted(dev, evalTokens) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dev.Fill(&b, rows)
		in := InputOf(&b)
		t.ours.Reset(0)
		sum += t.loss(t.ours, student, &in, nil) * float64(b.Tokens()) / float64(dev.Tokens())
		done += len(rows)
		if progress != nil {
			progress(done, dev.Len())
		}
	}
	return []task.Metric{{Name: task.Distance, Value: sum}}, nil
}
