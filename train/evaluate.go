package train

import (
	"context"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// evalTokens is the size of an evaluation batch: enough rows for the matrix
// products, few enough that a layer's activations stay in cache.
const evalTokens = 1024

// Evaluator computes logits and losses without recording gradients.
type Evaluator struct {
	tape  *nn.Tape
	batch task.Batch
	in    model.Input
}

// NewEvaluator returns an evaluator that works on the pool.
func NewEvaluator(pool *kernel.Pool, prec kernel.Precision) *Evaluator {
	e := &Evaluator{tape: nn.NewTape(pool)}
	e.tape.Prec = prec
	return e
}

// Logits returns the model's outputs for every row of the data (rows × labels),
// in the data's order. progress may be nil. While it runs on more than one batch the
// model's matrices are packed, once for all, but not those of experts.
func (e *Evaluator) Logits(ctx context.Context, m *model.Model, data *task.Encoded, progress func(done, total int)) ([]float32, error) {
	labels := len(m.Config.Labels)
	if data.LabelWords != nil {
		labels = len(data.LabelWords)
	}
	logits := make([]float32, data.Len()*labels)
	batches := task.LengthSorted(data, evalTokens)
	if len(batches) > 1 { // a single one, as a line of predict, would only copy them
		m.Pack(e.tape.Pool, e.tape.Prec, false)
		defer m.Unpack()
	}
	done := 0
	for _, rows := range batches {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out := e.forward(m, data, rows)
		for i, r := range rows {
			row, to := out.Data[i*out.Cols:(i+1)*out.Cols], logits[int(r)*labels:(int(r)+1)*labels]
			if data.LabelWords == nil {
				copy(to, row)
			}
			for c, word := range data.LabelWords { // how likely the decoder begins with it
				to[c] = row[word]
			}
		}
		done += len(rows)
		if progress != nil {
			progress(done, data.Len())
		}
	}
	return logits, nil
}

// Likelihood returns the log-likelihood of all of the data's target tokens under
// a language model, and their number. progress may be nil.
func (e *Evaluator) Likelihood(ctx context.Context, m *model.Model, data *task.Encoded, progress func(done, total int)) (sum float64, targets int, err error) {
	done := 0
	for _, rows := range task.LengthSorted(data, evalTokens) {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		e.fill(data, rows)
		sum += m.Loss(e.tape, nn.KernelFunction, &e.in, nil)
		for _, id := range e.batch.Targets {
			if id >= 0 {
				targets++
			}
		}
		done += len(rows)
		if progress != nil {
			progress(done, data.Len())
		}
	}
	return sum, targets, nil
}

// forward returns the outputs for a batch of rows, until the next call.
func (e *Evaluator) forward(m *model.Model, data *task.Encoded, rows []int32) *nn.Tensor {
	e.fill(data, rows)
	if data.LabelWords != nil { // the decoder is to begin
		e.in.Targets, e.in.DecoderIDs, e.in.DecoderOffsets = nil, nil, nil
	}
	return m.Forward(e.tape, &e.in)
}

// fill makes a batch of rows the next input.
func (e *Evaluator) fill(data *task.Encoded, rows []int32) {
	data.Fill(&e.batch, rows)
	e.tape.Reset(0)
	e.in = InputOf(&e.batch)
}
