package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mlpfusion/chat"
	"mlpfusion/checkpoint"
	"mlpfusion/internal/disk"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// Config is what a fine-tuning run is made of, apart from model and data.
type Config struct {
	Epochs        int             `json:"epochs"`
	MaxSteps      int             `json:"max_steps,omitempty"`  // 0: all steps of the epochs
	Batch         int             `json:"batch"`                // sequences of a pass
	Accumulate    int             `json:"accumulate,omitempty"` // passes of a step, whose batch is all of theirs; 0: 1
	LR            []float64       `json:"lr"`                   // each is tried, the best kept
	Schedule      Schedule        `json:"schedule"`
	Warmup        float64         `json:"warmup"` // share of the steps
	Optimizer     OptimizerConfig `json:"optimizer"`
	Seed          uint64          `json:"seed"`
	BF16          bool            `json:"bf16,omitempty"`
	EvalEvery     int             `json:"eval_every,omitempty"`     // steps; 0: after each epoch
	SnapshotEvery int             `json:"snapshot_every,omitempty"` // steps; 0: with each evaluation only
	// TrainRouters trains the routers of mixtures of experts too, with their
	// losses; otherwise they stay as they are, as the paper has it.
	TrainRouters bool `json:"train_routers,omitempty"`
	// LoRA trains a low-rank adapter of the model; nil: the model.
	LoRA *model.AdapterOptions `json:"lora,omitempty"`
	// Base is how an adapted model's own matrices are kept.
	Base model.Base `json:"base,omitempty"`
	// Date is what the chat template was told that the time is, if it asks.
	Date time.Time `json:"date,omitzero"`
	// Patience ends a try after this many evaluations without a better one; 0: never.
	Patience int `json:"patience,omitempty"`
	// Recompute runs each layer again in the backward pass, see model.Model.Recompute.
	Recompute bool `json:"recompute,omitempty"`
}

// For fills in the batch and the learning rate that are usual for a model's
// family, where they are not given: the paper's for Switch Transformers (section
// 5.1), those of the BERT-like families, and for adapters and with SGD other rates.
func (c Config) For(m *model.Config) Config {
	batch, lr := 32, 2e-5
	if m.Mixture.Experts > 0 {
		batch, lr = 64, 1e-4
	}
	if c.LoRA != nil {
		lr = 2e-4
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

// Save writes a model trained on the data, made of the one in from: its weights and
// config.json, the files that go along, the chat template it learnt with if from has
// another, and which rows it was trained on, with those
// that from was. Of a model with an adapter it is the adapter's folder.
func (d *Data) Save(m *model.Model, o *checkpoint.Output, from *checkpoint.Dir) error {
	before, err := task.ReadDigests(from.Path)
	if err != nil {
		return err
	}
	if m.Config.Adapter != nil {
		err = m.SaveAdapter(o, from.Config)
	} else if err = m.Save(o, from.Config); err == nil {
		err = o.Carry(from.Path, from.Carry)
	}
	if err != nil {
		return err
	}
	if t := d.Train.Template; t != nil && !t.Own {
		if err := checkpoint.WriteFileAtomic(filepath.Join(o.Dir, chat.TemplateFile), []byte(t.Source)); err != nil {
			return err
		}
	}
	return checkpoint.WriteFileAtomic(filepath.Join(o.Dir, task.TrainedFile), before.With(d.Train.Digests).JSON())
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
	// Samples are texts that the model writes at an evaluation, where these are asked for.
	Samples []Sample `json:"samples,omitempty"`
}

// Sample is a text that a model in training writes to a prompt.
type Sample struct {
	Prompt string `json:"prompt"`
	Text   string `json:"text"`
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
	// Model tells the weights that Load reads from others; a run goes on only with the
	// same. It may be left empty.
	Model string
	// Objective is what the model learns; nil: Labels.
	Objective Objective
	// Sample, unless nil, writes texts with the model at each evaluation. What it writes
	// must depend on the weights alone.
	Sample func(context.Context, *model.Model) ([]Sample, error)
	// Dir holds snapshot, best weights and metrics; it is made when absent.
	Dir      string
	Resume   bool
	Observer Observer

	state   runState
	stepper *Stepper
	metrics *disk.File
	timing  struct {
		seconds float64
		steps   int
		tokens  int64
	}
}

// runState is what a snapshot says besides tensors.
type runState struct {
	Settings json.RawMessage `json:"settings"` // what has to be the same on going on
	Try      int             `json:"try"`      // index into Config.LR
	Step     int             `json:"step"`     // steps taken in this try
	Tokens   int64           `json:"tokens"`
	Loss     float64         `json:"loss"`              // summed since the last point
	Count    int             `json:"count"`             // steps summed
	Norm     float64         `json:"norm"`              // of the last step's gradient
	Seen     int64           `json:"seen,omitempty"`    // tokens that experts saw since the last point
	Dropped  int64           `json:"dropped,omitempty"` // and those beyond their expert's capacity
	Pending  bool            `json:"pending"`           // the last step's evaluation is still to be done
	Best     *Point          `json:"best"`
	Merit    *float64        `json:"merit,omitempty"`  // the best of this try
	Waited   int             `json:"waited,omitempty"` // evaluations since that
	Metrics  int64           `json:"metrics_bytes"`
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
	if r.Objective == nil {
		r.Objective = Labels{}
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
		r.state.Merit, r.state.Waited = nil, 0
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
		_ = disk.Remove(r.metrics.Name())
		_ = disk.Remove(filepath.Join(r.Dir, bestFile))
		_ = disk.Remove(r.Dir)
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
	want, err := r.settings()
	if err != nil {
		return err
	}
	snapshot := filepath.Join(r.Dir, snapshotFile)
	_, err = os.Stat(snapshot)
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
		if string(r.state.Settings) != string(want) {
			return fmt.Errorf("%s: expected the settings of the run to be resumed, found others: %s", snapshot, Changed(r.state.Settings, want))
		}
	default:
		if err := disk.MkdirAll(r.Dir); err != nil {
			return err
		}
		r.state.Settings = want
	}
	r.metrics, err = disk.Create(filepath.Join(r.Dir, MetricsFile))
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
func (r *Runner) epochSteps() int {
	rows := r.Config.StepRows()
	return (r.Data.Train.Len() + rows - 1) / rows
}

// StepRows is the number of sequences of a step.
func (c *Config) StepRows() int { return c.Batch * max(1, c.Accumulate) }

func (r *Runner) total() int {
	n := r.epochSteps() * r.Config.Epochs
	if r.Config.MaxSteps > 0 {
		n = min(n, r.Config.MaxSteps)
	}
	return n
}
