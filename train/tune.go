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
// of hidden states, summed over the hidden size and averaged over tokens; where layers
// normalise the stream first, a token's is divided by the mean square of the teacher's
// state, as the norm will do. On the dev set it is the metric task.Distance. All other weights are frozen, labels are
// not looked at, and dropout is off in both models.
//
// Each batch passes through both models; no state outlives its step.
type Tuning struct {
	Teacher *model.Model `json:"-"`

	theirs, ours     *nn.Tape // ours for scores
	original, hidden model.Output
	weights          []float32 // of a layer's tokens
}

func (t *Tuning) main(task.Spec) string { return task.Distance }

func (t *Tuning) begin(pool *kernel.Pool, prec kernel.Precision, student *model.Model) error {
	a, b := t.Teacher.Config, student.Config
	if a.Type != b.Type || a.Hidden != b.Hidden || a.Layers != b.Layers || a.DecoderLayers != b.DecoderLayers || a.Vocab != b.Vocab {
		return fmt.Errorf("tune: expected the model that was fused (%s), found %s", shapeText(b), shapeText(a))
	}
	if err := freezeAllButFused(student); err != nil {
		return fmt.Errorf("tune: %w", err)
	}
	student.Config.Dropout = model.Dropout{}
	t.theirs, t.ours = nn.NewTape(pool), nn.NewTape(pool)
	t.theirs.Prec, t.ours.Prec = prec, prec
	t.original = model.Output{AllTokens: true, KeepHidden: true}
	t.hidden = t.original
	return nil
}

// freezeAllButFused leaves the weights of fused blocks alone to be trained.
func freezeAllButFused(student *model.Model) error {
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
		return errors.New("expected a fused model, found no fused block")
	}
	for _, w := range student.Weights {
		w.Frozen = !trained[w]
	}
	return nil
}

// shapeText is what two models must have in common.
func shapeText(c *model.Config) string {
	layers := fmt.Sprintf("%d layers", c.Layers)
	if c.DecoderLayers > 0 {
		layers += fmt.Sprintf(" and %d of the decoder", c.DecoderLayers)
	}
	return fmt.Sprintf("%s, %s of hidden size %d, vocabulary %d", c.Type, layers, c.Hidden, c.Vocab)
}

func (t *Tuning) loss(tape *nn.Tape, student *model.Model, in *model.Input, _ []float32) (sum float64) {
	t.theirs.Reset(0)
	t.Teacher.ForwardAll(t.theirs, in, &t.original)
	student.ForwardAll(tape, in, &t.hidden)
	layers := len(t.hidden.Hidden) - 1 // before them the embeddings
	for l := 1; l <= layers; l++ {
		theirs := t.original.Hidden[l]
		var weights []float32
		if student.Config.NormsFirst() {
			t.weights = model.AppendStreamWeights(t.weights[:0], theirs)
			weights = t.weights
		}
		sum += tape.SquaredDistance(t.hidden.Hidden[l], theirs, 1/float64(layers), weights)
	}
	return sum
}

func (t *Tuning) terms(_ *model.Model, in *model.Input) float64 { return float64(len(in.IDs)) }

func (t *Tuning) held() int64 { return t.theirs.Bytes() + t.ours.Bytes() }

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
