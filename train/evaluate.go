package train

import (
	"context"
	"sync"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
)

// evalTokens is the size of a batch that all workers evaluate together: enough rows
// for the matrix products, few enough that a layer's activations stay in cache.
const evalTokens = 1024

// A worker evaluates batches of about laneTokens alone, and fewer than laneLeast not: it
// would read all weights for them.
const laneTokens, laneLeast = 512, 128

// Evaluator computes logits and losses without recording gradients.
type Evaluator struct {
	pool  *kernel.Pool
	whole *lane   // on all workers
	alone []*lane // of each worker
}

// lane is what it takes to evaluate one batch at a time.
type lane struct {
	tape  *nn.Tape
	batch task.Batch
	in    model.Input
}

// NewEvaluator returns an evaluator that works on the pool.
func NewEvaluator(pool *kernel.Pool, prec kernel.Precision) *Evaluator {
	e := &Evaluator{pool: pool, whole: newLane(pool, prec)}
	for range pool.Workers() {
		e.alone = append(e.alone, newLane(kernel.NewPool(1), prec))
	}
	return e
}

func newLane(pool *kernel.Pool, prec kernel.Precision) *lane {
	l := &lane{tape: nn.NewTape(pool)}
	l.tape.Prec = prec
	return l
}

// Logits returns the model's outputs for every row of the data (rows × labels),
// in the data's order. progress may be nil; its calls do not overlap.
//
// What makes one batch is the work of all workers. Of more each takes whole ones: they
// need not wait for each other then, nor fetch what another has written. Meanwhile the
// model's matrices are packed, once for all, but not those of experts.
func (e *Evaluator) Logits(ctx context.Context, m *model.Model, data *task.Encoded, progress func(done, total int)) ([]float32, error) {
	labels := len(m.Config.Labels)
	if data.LabelWords != nil {
		labels = len(data.LabelWords)
	}
	j := &logitsJob{ctx: ctx, data: data, labels: labels, logits: make([]float32, data.Len()*labels), progress: progress}
	workers := e.pool.Workers()
	if data.Tokens() <= max(laneTokens, workers*laneLeast) {
		j.batches, j.lanes, j.models = task.EqualParts(data, 1), []*lane{e.whole}, []*model.Model{m}
		for i := range j.batches {
			j.Do(i, 0)
		}
		return j.logits, ctx.Err()
	}
	rounds := (data.Tokens() + workers*laneTokens - 1) / (workers * laneTokens)
	j.batches, j.lanes = task.EqualParts(data, rounds*workers), e.alone
	m.Pack(e.pool, e.whole.tape.Prec, false)
	defer m.Unpack()
	for range workers {
		j.models = append(j.models, m.Share())
	}
	e.pool.Run(len(j.batches), j)
	return j.logits, ctx.Err()
}

// logitsJob evaluates batches, each on the lane and the model of the worker.
type logitsJob struct {
	ctx     context.Context
	data    *task.Encoded
	batches [][]int32
	lanes   []*lane
	models  []*model.Model
	labels  int
	logits  []float32

	reporting sync.Mutex
	progress  func(done, total int)
	done      int
}

func (j *logitsJob) Do(i, w int) {
	if j.ctx.Err() != nil {
		return
	}
	rows := j.batches[i]
	out := j.lanes[w].forward(j.models[w], j.data, rows)
	for i, r := range rows {
		row, to := out.Data[i*out.Cols:(i+1)*out.Cols], j.logits[int(r)*j.labels:(int(r)+1)*j.labels]
		if j.data.LabelWords == nil {
			copy(to, row)
		}
		for c, word := range j.data.LabelWords { // how likely the decoder begins with it
			to[c] = row[word]
		}
	}
	if j.progress != nil {
		j.reporting.Lock()
		defer j.reporting.Unlock()
		j.done += len(rows)
		j.progress(j.done, j.data.Len())
	}
}

// Likelihood returns the log-likelihood of all of the data's target tokens under
// a language model, and their number. progress may be nil.
func (e *Evaluator) Likelihood(ctx context.Context, m *model.Model, data *task.Encoded, progress func(done, total int)) (sum float64, targets int, err error) {
	err = e.likelihoods(ctx, m, data, evalTokens, progress, func(s float64, n int) { sum, targets = sum+s, targets+n })
	return sum, targets, err
}

// likelihoods gives the log-likelihood and the number of target tokens of each batch
// of this many tokens.
func (e *Evaluator) likelihoods(ctx context.Context, m *model.Model, data *task.Encoded, tokens int, progress func(done, total int), each func(sum float64, targets int)) error {
	done := 0
	for _, rows := range task.LengthSorted(data, tokens) {
		if err := ctx.Err(); err != nil {
			return err
		}
		e.whole.fill(data, rows)
		sum, targets := m.Loss(e.whole.tape, nn.KernelFunction, &e.whole.in, nil), 0
		for _, id := range e.whole.batch.Targets {
			if id >= 0 {
				targets++
			}
		}
		each(sum, targets)
		done += len(rows)
		if progress != nil {
			progress(done, data.Len())
		}
	}
	return nil
}

// forward returns the outputs for a batch of rows, until the next call.
func (l *lane) forward(m *model.Model, data *task.Encoded, rows []int32) *nn.Tensor {
	l.fill(data, rows)
	if data.LabelWords != nil { // the decoder is to begin
		l.in.Targets, l.in.DecoderIDs, l.in.DecoderOffsets = nil, nil, nil
	}
	return m.Forward(l.tape, &l.in)
}

// fill makes a batch of rows the next input.
func (l *lane) fill(data *task.Encoded, rows []int32) {
	data.Fill(&l.batch, rows)
	l.tape.Reset(0)
	l.in = InputOf(&l.batch)
}
