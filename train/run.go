package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// Config is what a fine-tuning run is made of, apart from model and data.
type Config struct {
	Epochs        int             `json:"epochs"`
	MaxSteps      int             `json:"max_steps,omitempty"` // 0: as the epochs make
	Batch         int             `json:"batch"`               // sequences
	LR            []float64       `json:"lr"`                  // each is tried, the best kept
	Schedule      Schedule        `json:"schedule"`
	Warmup        float64         `json:"warmup"` // share of the steps
	Optimizer     OptimizerConfig `json:"optimizer"`
	Seed          uint64          `json:"seed"`
	BF16          bool            `json:"bf16,omitempty"`
	EvalEvery     int             `json:"eval_every,omitempty"`     // steps; 0: after each epoch
	SnapshotEvery int             `json:"snapshot_every,omitempty"` // steps; 0: with each evaluation only
	Distill       *Distillation   `json:"distill,omitempty"`        // from Runner.Teacher
	// TrainRouters trains the routers of mixtures of experts too, with their
	// losses; otherwise they stay as they are, as the paper has it.
	TrainRouters bool `json:"train_routers,omitempty"`
}

// For fills in the batch and the learning rate that are usual for a model's
// family, where they are not given: the paper's for Switch Transformers (section
// 5.1), those of the BERT-like families, and with SGD
// another rate.
func (c Config) For(m *model.Config) Config {
	batch, lr := 32, 2e-5
	if m.T5 != nil && m.T5.Experts > 0 {
		batch, lr = 64, 1e-4
	}
	if c.Optimizer.SGD {
		lr = 0.1
	}
	if c.Batch == 0 {
		c.Batch = batch
	}
	if len(c.LR) == 0 {
		c.LR = []float64{lr}
	}
	return c
}

// Precision is that of the run's products.
func (c *Config) Precision() kernel.Precision {
	if c.BF16 {
		return kernel.BF16
	}
	return kernel.FP32
}

// Data is a task's examples, tokenized.
type Data struct {
	Spec  task.Spec
	Train *task.Encoded
	Dev   *task.Encoded
}

// Point is one line of the metrics: a step's loss or an evaluation.
type Point struct {
	LR      float64       `json:"lr"` // as tried
	Step    int           `json:"step"`
	Epoch   float64       `json:"epoch"`
	Loss    float64       `json:"loss"`              // mean over the steps since the last point
	Norm    float64       `json:"grad_norm"`         // of the last gradient
	Metrics []task.Metric `json:"metrics,omitempty"` // of the dev set
	// Dropped is the share of tokens, since the last point, that were beyond the
	// capacity of their expert in a mixture.
	Dropped float64 `json:"dropped,omitempty"`
	// RouterZ and Balance are the routers' losses of the last step, before
	// weighting, when they are trained.
	RouterZ float64 `json:"router_z_loss,omitempty"`
	Balance float64 `json:"balance_loss,omitempty"`
}

// Observer is told how a run goes on. Its methods may be left nil.
type Observer struct {
	// Step is called after each step.
	Step func(done, total int, loss float64)
	// Eval is called while the dev set is evaluated.
	Eval func(done, total int)
	// Point is called for each line of the metrics.
	Point func(p Point)
	// Note is called with a message for the user.
	Note func(format string, args ...any)
}

// Result is what a run came to.
type Result struct {
	LR      float64       `json:"lr"`   // the best of those tried
	Step    int           `json:"step"` // of the best evaluation
	Metrics []task.Metric `json:"metrics"`
	Steps   int           `json:"steps"`
	Tokens  int64         `json:"tokens"` // trained on, all learning rates
	// SecondsPerStep and TokensPerSecond are of the training steps since the
	// last resume, evaluation and snapshots left out.
	SecondsPerStep  float64 `json:"seconds_per_step"`
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// Runner fine-tunes a model, keeping its state in a folder of its own so that a
// killed run can go on.
type Runner struct {
	Config Config
	Data   Data
	Pool   *kernel.Pool
	// Load makes the model as it is before training; called once for each
	// learning rate.
	Load func() (*model.Model, error)
	// Teacher, when given, makes it layer-wise tuning: the model learns the
	// teacher's hidden states instead of the labels, see tune.go. With
	// Config.Distill it learns the teacher's logits beside the labels.
	Teacher *model.Model
	// Dir holds snapshot, best weights and metrics; it is made when absent.
	Dir      string
	Resume   bool
	Observer Observer

	state   runState
	stepper *Stepper
	score   func(ctx context.Context, m *model.Model) ([]task.Metric, error) // on the dev set
	main    string                                                           // the metric that says which weights are best
	metrics *os.File
	timing  struct {
		seconds float64
		steps   int
		tokens  int64
	}
}

// runState is what a snapshot says besides tensors.
type runState struct {
	Config  Config  `json:"config"`
	Try     int     `json:"try"`  // index into Config.LR
	Step    int     `json:"step"` // steps taken in this try
	Tokens  int64   `json:"tokens"`
	Loss    float64 `json:"loss"`              // summed since the last point
	Count   int     `json:"count"`             // steps summed
	Norm    float64 `json:"norm"`              // of the last step's gradient
	Seen    int64   `json:"seen,omitempty"`    // tokens that experts saw since the last point
	Dropped int64   `json:"dropped,omitempty"` // and those beyond their expert's capacity
	Pending bool    `json:"pending"`           // the last step's evaluation is still to be done
	Best    *Point  `json:"best"`
	Metrics int64   `json:"metrics_bytes"`
	// Idle are the steps that the optimizer left parameters alone in.
	Idle map[string]int `json:"idle,omitempty"`
}

const (
	snapshotFile = "snapshot.safetensors"
	bestFile     = "best.safetensors"
	// MetricsFile is the name of the metrics within Runner.Dir: one Point a line.
	MetricsFile = "metrics.jsonl"
)

// Run trains and returns the model with the best weights. When ctx ends it
// stops after the step under way, with a snapshot, and returns ctx's error.
func (r *Runner) Run(ctx context.Context) (*model.Model, *Result, error) {
	if r.Data.Train.Len() == 0 || r.Data.Dev.Len() == 0 {
		return nil, nil, fmt.Errorf("expected examples to train on and to evaluate on, found %d and %d", r.Data.Train.Len(), r.Data.Dev.Len())
	}
	if err := r.open(); err != nil {
		return nil, nil, err
	}
	defer r.close()
	for ; r.state.Try < len(r.Config.LR); r.state.Try++ {
		if err := r.try(ctx); err != nil {
			return nil, nil, err
		}
		r.state.Step, r.state.Loss, r.state.Count, r.state.Seen, r.state.Dropped = 0, 0, 0, 0, 0
	}
	m, err := r.last()
	if err != nil {
		return nil, nil, err
	}
	if err := restore(filepath.Join(r.Dir, bestFile), nil, m, nil); err != nil {
		return nil, nil, err
	}
	b := r.state.Best
	result := &Result{LR: b.LR, Step: b.Step, Metrics: b.Metrics, Steps: r.total(), Tokens: r.state.Tokens}
	if t := r.timing; t.steps > 0 {
		result.SecondsPerStep = t.seconds / float64(t.steps)
		result.TokensPerSecond = float64(t.tokens) / t.seconds
	}
	return m, result, nil
}

// close leaves the folder behind only if there is something to go on with.
func (r *Runner) close() {
	_ = r.metrics.Close() // synced with each snapshot
	if _, err := os.Stat(filepath.Join(r.Dir, snapshotFile)); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(r.metrics.Name())
		_ = os.Remove(filepath.Join(r.Dir, bestFile))
		_ = os.Remove(r.Dir)
	}
}

// last is a model to put the best weights into: the one just trained, if one
// was, since another would double the memory.
func (r *Runner) last() (*model.Model, error) {
	if r.stepper != nil {
		return r.stepper.Model, nil
	}
	return r.Load()
}

// open makes the folder, or takes up the state in it.
func (r *Runner) open() error {
	snapshot := filepath.Join(r.Dir, snapshotFile)
	_, err := os.Stat(snapshot)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && !r.Resume:
		return fmt.Errorf("%s: expected no earlier run, found its snapshot: give --resume to go on with it or remove the folder", r.Dir)
	case err == nil:
		old, err := checkpoint.LoadSnapshot(snapshot, &r.state)
		if err != nil {
			return err
		}
		old.Close()
		want, _ := json.Marshal(r.Config)
		if found, _ := json.Marshal(r.state.Config); string(found) != string(want) {
			return fmt.Errorf("%s: expected the settings of the run to be resumed, %s, found %s", snapshot, found, want)
		}
	default:
		if err := os.MkdirAll(r.Dir, 0o777); err != nil {
			return err
		}
		r.state.Config = r.Config
	}
	r.score, r.main = r.scoreTask, r.Data.Spec.Main
	if r.tuning() {
		d := newDistance(r.Pool, r.Teacher, r.Config.Precision())
		r.score = func(ctx context.Context, m *model.Model) ([]task.Metric, error) {
			return d.score(ctx, m, r.Data.Dev, r.Observer.Eval)
		}
		r.main = task.Distance
	}
	r.metrics, err = os.OpenFile(filepath.Join(r.Dir, MetricsFile), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	// What a killed run wrote after its last snapshot will be written again.
	if err := r.metrics.Truncate(r.state.Metrics); err != nil {
		return err
	}
	_, err = r.metrics.Seek(r.state.Metrics, 0)
	return err
}

// epochSteps is the number of steps of one epoch; the last batch may be short.
func (r *Runner) epochSteps() int { return (r.Data.Train.Len() + r.Config.Batch - 1) / r.Config.Batch }

func (r *Runner) total() int {
	n := r.epochSteps() * r.Config.Epochs
	if r.Config.MaxSteps > 0 {
		n = min(n, r.Config.MaxSteps)
	}
	return n
}

func (r *Runner) tuning() bool { return r.Teacher != nil && r.Config.Distill == nil }

func (r *Runner) newStepper(m *model.Model) (*Stepper, error) {
	c := &r.Config
	switch {
	case r.tuning():
		return NewTuner(r.Pool, m, r.Teacher, c.Optimizer, r.Config.Precision())
	case c.Distill != nil:
		return NewDistiller(r.Pool, m, r.Teacher, *c.Distill, c.Optimizer, r.Config.Precision(), c.Seed)
	}
	return NewStepper(r.Pool, m, c.Optimizer, r.Config.Precision(), c.Seed), nil
}

// try trains with one learning rate, from where the state says.
func (r *Runner) try(ctx context.Context) error {
	m, err := r.Load()
	if err != nil {
		return err
	}
	if r.Config.TrainRouters && r.Config.Distill != nil {
		return errors.New("train routers: expected no teacher, whose loss does not know the routers' losses")
	}
	if !r.Config.TrainRouters {
		m.FreezeRouters()
	} else if len(m.Usage()) == 0 {
		return fmt.Errorf("train routers: expected a model with mixtures of experts, found a %s without", m.Config.Type)
	}
	if r.stepper, err = r.newStepper(m); err != nil {
		return err
	}
	if r.Config.TrainRouters {
		m.RouterLosses = true
	}
	if r.state.Step > 0 {
		if err := restore(filepath.Join(r.Dir, snapshotFile), &r.state, m, r.stepper.Optimizer); err != nil {
			return err
		}
		r.note("going on at step %d of %d", r.state.Step, r.total())
	}
	var batch task.Batch
	var order []int32
	total, per := r.total(), r.epochSteps()
	lr := r.Config.LR[r.state.Try]
	warmup := int(math.Ceil(r.Config.Warmup * float64(total)))
	for r.state.Step < total || r.state.Pending {
		if r.state.Pending {
			if err := r.afterStep(ctx, total, per); err != nil {
				return err
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(r.snapshot(), err)
		}
		step := r.state.Step
		if order == nil || step%per == 0 {
			order = task.Shuffle(r.Config.Seed, step/per, r.Data.Train.Len())
		}
		from := step % per * r.Config.Batch
		r.Data.Train.Fill(&batch, order[from:min(len(order), from+r.Config.Batch)])
		m.ClearUsage()
		start := time.Now()
		loss := r.stepper.Step(&batch, lr*r.Config.Schedule.Factor(step, warmup, total))
		r.timing.seconds += time.Since(start).Seconds()
		r.timing.steps++
		r.timing.tokens += int64(batch.Tokens())
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return fmt.Errorf("step %d: expected a finite loss, found %v: the learning rate %g is too large for this model", step+1, loss, lr)
		}
		seen, dropped := m.Routed()
		r.state.Seen += seen
		r.state.Dropped += dropped
		r.state.Step++
		r.state.Tokens += int64(batch.Tokens())
		r.state.Loss += loss
		r.state.Count++
		r.state.Norm = r.stepper.Optimizer.Norm()
		if r.Observer.Step != nil {
			r.Observer.Step(r.state.Step, total, loss)
		}
		r.state.Pending = true
	}
	return nil
}

// afterStep writes a point, evaluates and saves when it is time.
func (r *Runner) afterStep(ctx context.Context, total, per int) error {
	step := r.state.Step
	every := r.Config.EvalEvery
	if every == 0 {
		every = per
	}
	evaluate := step == total || step%every == 0
	const pointEvery = 10
	if evaluate || step%pointEvery == 0 {
		p := Point{LR: r.Config.LR[r.state.Try], Step: step, Epoch: float64(step) / float64(per), Loss: r.state.Loss / float64(r.state.Count), Norm: r.state.Norm}
		m := r.stepper.Model
		if r.state.Dropped > 0 {
			p.Dropped = float64(r.state.Dropped) / float64(r.state.Seen+r.state.Dropped)
		}
		for i := range m.RouterZLoss {
			p.RouterZ += m.RouterZLoss[i]
			p.Balance += m.BalanceLoss[i]
		}
		if evaluate {
			if err := r.evaluate(ctx, &p); err != nil {
				return err
			}
		}
		if err := r.write(p); err != nil {
			return err
		}
		r.state.Loss, r.state.Count, r.state.Seen, r.state.Dropped = 0, 0, 0, 0
	}
	r.state.Pending = false
	if evaluate || r.Config.SnapshotEvery > 0 && step%r.Config.SnapshotEvery == 0 {
		return r.snapshot()
	}
	return nil
}

// evaluate scores the dev set and keeps the weights when they are the best yet.
func (r *Runner) evaluate(ctx context.Context, p *Point) error {
	r.stepper.Optimizer.Flush()
	m := r.stepper.Model
	var err error
	if p.Metrics, err = r.score(ctx, m); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(r.snapshot(), err)
		}
		return err
	}
	best := r.state.Best
	if best != nil && r.merit(p.Metrics) <= r.merit(best.Metrics) {
		return nil
	}
	if err := checkpoint.SaveSnapshot(filepath.Join(r.Dir, bestFile), p, weights(m)); err != nil {
		return err
	}
	kept := *p
	r.state.Best = &kept
	return nil
}

// scoreTask scores the model as the task does.
func (r *Runner) scoreTask(ctx context.Context, m *model.Model) ([]task.Metric, error) {
	return NewEvaluator(r.Pool, r.Config.Precision()).Score(ctx, m, r.Data.Spec, r.Data.Dev, r.Observer.Eval)
}

// merit says of two scores which is the better: the larger.
func (r *Runner) merit(metrics []task.Metric) float64 {
	for _, m := range metrics {
		switch {
		case m.Name == r.main && task.LowerIsBetter(m.Name):
			return -m.Value
		case m.Name == r.main:
			return m.Value
		}
	}
	return math.Inf(-1)
}

func (r *Runner) write(p Point) error {
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	n, err := r.metrics.Write(append(line, '\n'))
	r.state.Metrics += int64(n)
	if r.Observer.Point != nil {
		r.Observer.Point(p)
	}
	return err
}

func (r *Runner) note(format string, args ...any) {
	if r.Observer.Note != nil {
		r.Observer.Note(format, args...)
	}
}

// snapshot saves all that a resumed run needs.
func (r *Runner) snapshot() error {
	r.stepper.Optimizer.Flush()
	r.state.Idle = r.stepper.Optimizer.Idle()
	if err := r.metrics.Sync(); err != nil {
		return err
	}
	sections := weights(r.stepper.Model)
	err := r.stepper.Optimizer.Moments(func(name string, m, v []float32) error {
		sections = append(sections, checkpoint.Section{Name: "m." + name, Float32: m}, checkpoint.Section{Name: "v." + name, Float32: v})
		return nil
	})
	if err != nil {
		return err
	}
	return checkpoint.SaveSnapshot(filepath.Join(r.Dir, snapshotFile), &r.state, sections)
}

func weights(m *model.Model) []checkpoint.Section {
	var s []checkpoint.Section
	for _, p := range m.Params {
		s = append(s, checkpoint.Section{Name: p.Name, Float32: p.Data})
	}
	return s
}

// restore reads a snapshot's weights into m and its moments into o, each unless
// nil.
func restore(path string, s *runState, m *model.Model, o *Optimizer) error {
	var ignored any
	var into any = &ignored
	if s != nil {
		into = s
	}
	r, err := checkpoint.LoadSnapshot(path, into)
	if err != nil {
		return err
	}
	defer r.Close()
	read := func(name string, dst []float32) error {
		t, ok := r.Tensor(name)
		if !ok || t.Elements() != len(dst) {
			return fmt.Errorf("%s: %s: expected %d values, found another model's snapshot", path, name, len(dst))
		}
		return t.ReadFloat32(dst)
	}
	for _, p := range m.Params {
		if err := read(p.Name, p.Data); err != nil {
			return err
		}
	}
	if o == nil {
		return nil
	}
	o.Resume(s.Step, s.Idle)
	return o.Moments(func(name string, m, v []float32) error {
		return errors.Join(read("m."+name, m), read("v."+name, v))
	})
}
