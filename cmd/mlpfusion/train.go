package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/disk"
	"mlpfusion/internal/peak"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// trained is what the train command reports.
type trained struct {
	*train.Result
	Task            string        `json:"task"`
	Model           string        `json:"model"`
	Examples        int           `json:"examples"`
	Parameters      int           `json:"parameters"`
	SecondsPerEpoch float64       `json:"seconds_per_epoch"`
	PeakMemory      int64         `json:"peak_memory_bytes"`
	Points          []train.Point `json:"points"`
}

func (a *app) trainCommand() *cobra.Command {
	var cfg train.Config
	var distill train.Distillation
	var schedule, precision, optimizer, limit string
	var decay, clip float64
	var run training
	var lora loraFlags
	data := &run.data
	var c *cobra.Command
	c = &cobra.Command{
		Use:   "train MODEL OUT",
		Short: "Fine-tune a model, original or compressed, or make a new one",
		Long: `Fine-tune MODEL on a task and write the best weights, by the dev set, to OUT.
Of several learning rates each is tried from the start and the best result kept.

Language models learn to write the texts of webnlg and e2e, or plain text (task
lm): files train.txt, dev.txt … in the folder of the data, a file being one
document or several with lines <|endoftext|> between them. Documents are cut to
--max-length tokens; nothing looks back across the end of a document.

Task chat teaches conversations, written as the model's own chat template writes
them: JSONL, JSON or Parquet with messages, conversations (from, value), prompt and
completion, instruction and output, or question and answer. Learnt are the words of
the assistant, unless --loss says otherwise; what is too long ends at an earlier turn.

With --init the model begins from nothing: the file is its config.json, and MODEL
a folder with the files of its tokenizer.

While it runs, OUT.train holds snapshots and metrics.jsonl; a run that was
stopped or killed goes on with --resume and ends with the same weights.

With --lora, MODEL stays as it is and OUT is an adapter for it, as PEFT writes them:
the commands that read a model take it with --adapter, and merge makes a model of both.

With --teacher, MODEL learns, beside the labels, the logits of another model for
the same task, such as the original fine-tuned: knowledge distillation. Of language
models these are the predictions of each next token.`,
		Example: `  mlpfusion train MODEL tuned --task sst2 --data glue/SST-2 --epochs 3 --lr 2e-5
  mlpfusion train small tuned --task sst2 --data glue/SST-2 --lr 1e-5,2e-5,4e-5
  mlpfusion train small distilled --task sst2 --data glue/SST-2 --teacher tuned-original
  mlpfusion train gpt2 adapter --task lm --data texts --lora 16
  mlpfusion train switch tuned --task sst2 --data glue/SST-2 --train-routers
  mlpfusion train MODEL tuned --task text --data reviews --text review --label stars --regression
  mlpfusion train gpt2 tuned --task webnlg --data webnlg_challenge_2017 --epochs 10
  mlpfusion train llama tuned --task chat --data chats.jsonl --epochs 2 --lr 1e-5
  mlpfusion train tokenizer new --init config.json --task lm --data texts --batch 8 --lr 1e-3 --schedule cosine`,
		Args: exactly("MODEL", "OUT"),
		RunE: func(_ *cobra.Command, args []string) error {
			var err error
			cfg.Seed = a.seed
			if cfg.Schedule, err = train.ParseSchedule(schedule); err != nil {
				return usageError{err}
			}
			if cfg.BF16, err = bfloat16(precision); err != nil {
				return err
			}
			if cfg.Optimizer, err = train.ParseOptimizer(optimizer); err != nil {
				return usageError{err}
			}
			cfg.Optimizer.ClipNorm = clip
			if c.Flags().Changed("weight-decay") {
				cfg.Optimizer.WeightDecay = decay
			}
			if cfg.Warmup < 0 || cfg.Warmup > 1 {
				return usageError{fmt.Errorf("warmup: expected a share from 0 to 1, found %g", cfg.Warmup)}
			}
			f := c.Flags()
			if err := cmp.Or(atLeast(f, 1, "epochs", "batch", "accumulate", "patience"), atLeast(f, 0, "max-steps", "eval-every", "snapshot-every", "weight-decay", "clip"), above0(f, "temperature")); err != nil {
				return err
			}
			if f.Changed("lr") && len(cfg.LR) == 0 {
				return usageError{errors.New("lr: expected numbers above 0, found none")}
			}
			for _, lr := range cfg.LR {
				if !(lr > 0) || math.IsInf(lr, 1) {
					return usageError{fmt.Errorf("lr: expected a finite number above 0, found %g", lr)}
				}
			}
			if distill.Teacher != "" {
				if !(distill.Weight >= 0 && distill.Weight <= 1) {
					return usageError{fmt.Errorf("distill-weight: expected a share from 0 to 1, found %g", distill.Weight)}
				}
				run.distill, run.teacher = &distill, distill.Teacher
			}
			taught := distill.Teacher != ""
			if err := onlyWith(f, []condition{{"distill-weight", taught, "--teacher"}, {"temperature", taught, "--teacher"}}); err != nil {
				return err
			}
			if cfg.LoRA, err = lora.options(f, run.scratch != "", cfg.TrainRouters); err != nil {
				return err
			}
			run.base = lora.base
			if limit != "" {
				if run.maxMemory, err = parseBytes(limit); err != nil {
					return usageError{fmt.Errorf("max-memory: %w", err)}
				}
				if f.Changed("accumulate") {
					return usageError{errors.New("accumulate: expected without --max-memory, which chooses it")}
				}
			}
			run.model, run.out, run.config = args[0], args[1], cfg
			run.batchGiven = c.Flags().Changed("batch")
			return a.train(&run)
		},
	}
	f := c.Flags()
	data.add(f)
	f.StringVar(&run.scratch, "init", "", "begin from nothing: the config.json of the model to make")
	f.IntVar(&data.trainRows, "train-rows", 0, "train on this many examples, chosen by the seed (default 0, for all)")
	f.IntVar(&cfg.Epochs, "epochs", 3, "passes over the training set")
	f.Float64SliceVar(&cfg.LR, "lr", nil, "learning `rates` to try (default 2e-5, 1e-4 for Switch Transformers, 2e-4 for adapters, 0.1 with sgd)")
	f.Lookup("lr").DefValue = "" // which pflag shows as []
	f.IntVar(&cfg.Batch, "batch", 0, "sequences of a batch (default 32; 64 for Switch Transformers; 8 for generation tasks and conversations)")
	f.IntVar(&cfg.Accumulate, "accumulate", 1, "passes of --batch sequences whose gradients make one step: that of so large a batch up to rounding, in the memory of one pass")
	f.StringVar(&limit, "max-memory", "", "take at most this much, such as `8GB`: chooses the passes of a step of --batch sequences, and --recompute")
	f.IntVar(&cfg.Patience, "patience", 0, "stop after this many evaluations without a better one (default never)")
	f.BoolVar(&cfg.Recompute, "recompute", false, "run each layer again for its gradients: less memory for long texts, a third more work")
	f.BoolVar(&cfg.TrainRouters, "train-routers", false, "train the routers of mixtures of experts too, with their losses; the paper leaves them as they are")
	f.IntVar(&cfg.MaxSteps, "max-steps", 0, "stop after N steps (default all steps of the epochs)")
	f.StringVar(&schedule, "schedule", "linear", "learning-rate schedule: linear, cosine or constant")
	f.Float64Var(&cfg.Warmup, "warmup", 0.06, "share of the steps in which the learning rate rises")
	f.Float64Var(&decay, "weight-decay", 0, "decoupled, none on biases and LayerNorm (default 0.1 with adamw)")
	f.Float64Var(&clip, "clip", train.PaperOptimizer.ClipNorm, "largest norm of the gradient, 0 for none")
	f.StringVar(&optimizer, "optimizer", "adamw", "adamw or sgd")
	f.StringVar(&precision, "precision", "fp32", "fp32, or bf16 for bfloat16 products with float32 weights and sums")
	f.IntVar(&cfg.EvalEvery, "eval-every", 0, "evaluate every N steps (default every epoch)")
	f.BoolVar(&run.evalLoss, "eval-loss", false, "choose the best weights by the loss on the dev set, and not by the task's main score")
	f.StringVar(&run.samples, "sample-prompts", "", "`file` of prompts, one a line, to each of which the model writes at each evaluation")
	f.IntVar(&cfg.SnapshotEvery, "snapshot-every", 200, "steps between snapshots")
	f.StringVar(&distill.Teacher, "teacher", "", "learn this fine-tuned model's logits too")
	f.Float64Var(&distill.Weight, "distill-weight", 0.5, "the teacher's share in the loss; the labels have the rest")
	f.Float64Var(&distill.Temperature, "temperature", 2, "by which the logits of both are divided for the teacher's share")
	f.BoolVar(&run.plan, "plan", false, "say how many tokens, steps, seconds and bytes the run will take, by a few steps that are tried, and write nothing")
	f.BoolVar(&run.resume, "resume", false, "go on with the run that was stopped")
	f.BoolVar(&run.overwrite, "overwrite", false, "replace OUT when it is there")
	lora.add(f)
	arrange(c,
		section{"Data", "task data train-rows dev-rows"},
		section{"Adapters", "lora lora-alpha lora-targets lora-dropout rslora base"},
		section{"Training", "lr epochs batch accumulate precision max-steps schedule warmup optimizer weight-decay clip train-routers recompute"},
		section{"Learning from another model", "teacher distill-weight temperature"},
		columnSection,
		section{"The run", "plan max-memory overwrite resume eval-every eval-loss patience sample-prompts snapshot-every init help"})
	return c
}

// bfloat16 reads the flag precision.
func bfloat16(precision string) (bool, error) {
	if precision != "fp32" && precision != "bf16" {
		return false, usageError{fmt.Errorf("precision: expected fp32 or bf16, found %q", precision)}
	}
	return precision == "bf16", nil
}

// training is what the commands train and tune are asked for.
type training struct {
	teacher    string              // whose hidden states are learnt, or with distill logits
	distill    *train.Distillation // how they are
	samples    string              // a file of prompts to write to at each evaluation
	scratch    string              // config.json of a model to begin from nothing
	base       string              // how an adapted model's own matrices are kept
	model, out string
	config     train.Config
	data       dataFlags
	batchGiven bool
	evalLoss   bool  // choose the best weights by the dev set's loss
	plan       bool  // say what the run will take, and end
	maxMemory  int64 // bytes that the run may take; 0: any

	resume, overwrite bool
}

// source opens the model, or the tokenizer of one that is made from nothing.
func (t *training) source(a *app) (*checkpoint.Dir, error) {
	if t.scratch != "" {
		return checkpoint.NewDir(t.model, t.scratch)
	}
	return a.open(t.model)
}

// start makes the model as it is before training.
func (t *training) start(dir *checkpoint.Dir, opt model.LoadOptions) (*model.Model, *model.Report, error) {
	if t.scratch == "" {
		return model.Load(dir, opt)
	}
	m, err := model.FromScratch(dir.Config, opt)
	if err != nil {
		err = fmt.Errorf("%s: %w", t.scratch, err)
	}
	return m, &model.Report{}, err
}

// loader returns what makes the model as it is before training, and says once which
// head is new.
func (t *training) loader(a *app, dir *checkpoint.Dir, head model.LoadOptions, why string) func() (*model.Model, error) {
	told := false
	return func() (*model.Model, error) {
		m, report, err := t.start(dir, head)
		if err == nil && len(report.New) > 0 && !told {
			told = true
			a.ui.say("%s head made anew (%s)%s", map[bool]string{false: "classification", true: "regression"}[head.Head == model.Regression], strings.Join(report.New, ", "), why)
			if len(report.Unused) > 0 {
				a.ui.say("not used: %s", strings.Join(report.Unused, ", "))
			}
		}
		return m, err
	}
}

// objective is what the model learns: the labels, with a teacher also that one's logits
// when it says how, and otherwise its hidden states.
func (t *training) objective(a *app, spec task.Spec, head model.LoadOptions) (train.Objective, error) {
	if t.teacher == "" {
		return train.Labels{}, nil
	}
	dir, err := a.open(t.teacher)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if t.distill != nil {
		if err := sameClasses(spec, dir); err != nil {
			return nil, err
		}
		head.NewHead, head.OtherClasses = false, false // it must have learnt the task
	}
	teacher, _, err := model.Load(dir, head)
	if err != nil {
		return nil, err
	}
	if t.distill == nil {
		return &train.Tuning{Teacher: teacher}, nil
	}
	t.distill.Model = teacher
	return t.distill, nil
}

// encode tokenizes both parts of the data.
func (t *training) encode(a *app, path string, set *task.Dataset, cfg *model.Config) (d train.Data, err error) {
	d.Spec = set.Spec
	length := t.data.length(set.Spec)
	if d.Train, err = a.encode("train", path, set.Spec, cfg, set.Train, t.data.trainRows, length); err != nil {
		return d, err
	}
	d.Dev, err = a.encode("dev", path, set.Spec, cfg, set.Dev, t.data.devRows, length)
	return d, err
}

// watch shows a run of training on a bar, and its evaluations.
func (a *app) watch(steps *progress) train.Observer {
	evals := &stages{u: &a.ui}
	dropped := "" // tokens, for the eye
	return train.Observer{
		Step: func(done, total int, loss float64) { steps.set(done, total, fmt.Sprintf("loss %.3f", loss)+dropped) },
		Eval: func(done, total int) {
			evals.set("evaluate", "example", done, total, "")
			if done == total {
				evals.end()
			}
		},
		Point: func(p train.Point) {
			dropped = droppedText(p.Dropped)
			if p.Metrics != nil {
				a.ui.say("lr %g, step %d, epoch %.2f: loss %.4f, %s%s", p.LR, p.Step, p.Epoch, p.Loss, metricsText(p.Metrics), dropped)
			}
			for _, s := range p.Samples {
				a.ui.say("%s", sampleText(s))
			}
		},
		Note: a.ui.say,
	}
}

// train runs the training that is asked for and writes what it came to.
func (a *app) train(t *training) error {
	if err := apart(t.out, t.model, t.teacher); err != nil {
		return err
	}
	dir, err := t.source(a)
	if err != nil {
		return err
	}
	defer dir.Close()
	set, err := a.load(&t.data)
	if err != nil {
		return err
	}
	if len(set.Train) == 0 {
		return fmt.Errorf("%s: expected a train file, found none", t.data.dir)
	}
	if t.evalLoss {
		set.Spec.ByLoss()
	}
	head, why := train.HeadFor(set.Spec), ""
	if t.scratch == "" {
		if head, why, err = fitHead(set, dir); err != nil {
			return err
		}
	}
	head.Seed = a.seed
	tuning := t.teacher != "" && t.distill == nil
	name := "train"
	if tuning {
		name = "tune"
		why += "; tuning does not use it, and train teaches it"
	}
	whole := head
	if t.config.LoRA != nil {
		if err := t.adapt(a, dir, &head); err != nil {
			return err
		}
	}
	load := t.loader(a, dir, head, why)
	first, err := load()
	if err != nil {
		return err
	}
	if t.config.LoRA != nil {
		a.tellAdapter(first)
	}
	folder := filepath.Clean(t.out) + "." + name
	var earlier *train.Config // of the run that goes on
	a.now = time.Now().Truncate(time.Second)
	if t.resume {
		if earlier, err = train.Earlier(folder); err != nil {
			return err
		}
		if earlier != nil && !earlier.Date.IsZero() {
			a.now = earlier.Date
		}
	}
	data, err := t.encode(a, dir.Path, set, first.Config)
	if err != nil {
		return err
	}
	objective, err := t.objective(a, set.Spec, whole)
	if err != nil {
		return err
	}
	weights, err := digest(a.ctx, dir)
	if err != nil {
		return err
	}
	r := &train.Runner{Model: weights, Config: t.config, Data: data, Pool: a.pool, Objective: objective, Dir: folder, Resume: t.resume}
	if (set.Spec.Generation || set.Spec.Chat) && !t.batchGiven {
		r.Config.Batch = 8 // the paper's
	}
	if template := data.Train.Template; template != nil && template.Dated {
		r.Config.Date = a.now
	}
	if t.samples != "" {
		if r.Sample, err = a.samples(t.samples, dir.Path, set, &data, first); err != nil {
			return err
		}
	}
	r.Config = r.Config.For(first.Config)
	report := &trained{Task: set.Spec.Name, Model: t.model, Examples: data.Train.Len()}
	for _, p := range first.Params {
		report.Parameters += len(p.Data)
	}
	r.Load = func() (*model.Model, error) {
		if m := first; m != nil { // the one that was loaded to learn its sizes
			first = nil
			return m, nil
		}
		return load()
	}
	switch {
	case t.maxMemory > 0 && earlier != nil:
		r.Config.Batch, r.Config.Accumulate, r.Config.Recompute = earlier.Batch, earlier.Accumulate, earlier.Recompute
	case t.maxMemory > 0:
		if err := a.fit(t, r, first); err != nil {
			return err
		}
	}
	if t.plan {
		return a.plan(r)
	}
	a.kept, a.resume = r.Dir, "--resume"
	return a.runTraining(t, r, dir, name, report)
}

// fit chooses passes and recomputation by the memory that the run may take.
func (a *app) fit(t *training, r *train.Runner, m *model.Model) error {
	c := &r.Config
	mem, fits, err := r.Fit(m, t.maxMemory)
	if err != nil {
		return err
	}
	passes := count(c.Batch, "sequence")
	if !fits {
		again := ""
		if c.Recompute {
			again = " with --recompute"
		}
		return fmt.Errorf("max-memory: expected at least %s, which passes of one sequence%s take, found %s", bytesText(mem.Total()), again, bytesText(t.maxMemory))
	}
	again := ""
	if c.Recompute {
		again = " --recompute"
	}
	a.ui.say("passes of %s, as with --batch %d --accumulate %d%s, take about %s", passes, c.Batch, c.Accumulate, again, bytesText(mem.Total()))
	debug.SetMemoryLimit(t.maxMemory) // what is no longer used is looked for before more is asked of the system
	return nil
}

// plan says what a run will take.
func (a *app) plan(r *train.Runner) error {
	p, err := r.Plan(a.ctx)
	if err != nil {
		return err
	}
	result := struct {
		*train.Plan
		PeakMemory int64 `json:"peak_memory_bytes"`
	}{p, peak.Bytes()}
	return a.ui.result(result, func(w io.Writer) {
		rates := ""
		if p.Rates > 1 {
			rates = fmt.Sprintf(", for each of %d learning rates", p.Rates)
		}
		fmt.Fprintf(w, "  %s, %s tokens in %s%s\n", count(p.Examples, "example"), significant(float64(p.Tokens)), count(p.Steps, "step"), rates)
		fmt.Fprintf(w, "  about %s in all (%s a step) without evaluations, peak memory %s\n", clock(p.Seconds), clock(p.SecondsPerStep), bytesText(result.PeakMemory))
		other := ""
		if p.Otherwise > 0 {
			other = fmt.Sprintf(" (%s %s --recompute)", bytesText(p.Otherwise), map[bool]string{false: "with", true: "without"}[r.Config.Recompute])
		}
		weights := ""
		if p.Memory.Weights != p.Memory.Float32 {
			weights = fmt.Sprintf(" (weights %s, as fp32 %s)", bytesText(p.Memory.Weights), bytesText(p.Memory.Float32))
		}
		fmt.Fprintf(w, "  memory by count %s: %s before training%s, %s of gradients and moments, %s for a step%s, %s to evaluate\n", bytesText(p.Memory.Total()),
			bytesText(p.Memory.Before), weights, bytesText(p.Memory.Parameters), bytesText(p.Memory.Step), other, bytesText(p.Memory.Evaluation))
	})
}

// runTraining runs a training, writes the best weights and reports.
func (a *app) runTraining(t *training, r *train.Runner, dir *checkpoint.Dir, name string, report *trained) error {
	o, err := checkpoint.CreateOutput(t.out, t.overwrite)
	if err != nil {
		return err
	}
	defer o.Abort()
	steps := a.ui.progress(name, "step", 0)
	r.Observer = a.watch(steps)
	best, result, err := r.Run(a.ctx)
	if err != nil {
		steps.stop()
		return err
	}
	steps.end()
	if report.Points, err = train.ReadPoints(r.Dir); err != nil { // those before a stop too
		return err
	}
	if err := r.Data.Save(best, o, dir); err != nil {
		return err
	}
	if err := o.Carry(r.Dir, []string{train.MetricsFile}); err != nil {
		return err
	}
	if err := o.Commit(); err != nil {
		return err
	}
	report.Result, report.PeakMemory = result, peak.Bytes()
	report.SecondsPerEpoch = result.SecondsPerStep * float64((r.Data.Train.Len()+r.Config.StepRows()-1)/r.Config.StepRows())
	if err := disk.RemoveAll(r.Dir); err != nil {
		return err
	}
	return a.ui.result(report, func(w io.Writer) {
		fmt.Fprintf(w, "  %s: best of %d evaluations at lr %g, step %d: %s\n", t.out, evaluations(report.Points), result.LR, result.Step, metricsText(result.Metrics))
		fmt.Fprintf(w, "  %s for an epoch of %d examples (%s tokens/s), peak memory %s\n", clock(report.SecondsPerEpoch), report.Examples,
			significant(result.TokensPerSecond), bytesText(report.PeakMemory))
	})
}

// fitHead is the head that a task asks of a checkpoint, and why it is a new one
// where the checkpoint has another.
func fitHead(set *task.Dataset, dir *checkpoint.Dir) (head model.LoadOptions, why string, err error) {
	cfg, err := model.ReadConfig(dir)
	if err != nil {
		return head, "", err
	}
	head = train.FitHead(set, cfg)
	if head.OtherClasses {
		why = fmt.Sprintf(": %s has one for %s, the data are of %s", dir.Path, strings.Join(cfg.Labels, ", "), strings.Join(set.Spec.Labels, ", "))
	}
	return head, why, nil
}

// sameClasses refuses a teacher whose logits stand in another order.
func sameClasses(spec task.Spec, teacher *checkpoint.Dir) error {
	cfg, err := model.ReadConfig(teacher)
	if err != nil {
		return err
	}
	if places, known := spec.ClassOrder(cfg.Labels); !known || !slices.IsSorted(places) {
		return fmt.Errorf("%s: expected a teacher with the classes in the order %s, found %s", teacher.Path, strings.Join(spec.Labels, ", "), strings.Join(cfg.Labels, ", "))
	}
	return nil
}

func evaluations(points []train.Point) (n int) {
	for _, p := range points {
		if p.Metrics != nil {
			n++
		}
	}
	return n
}

// droppedText tells of the tokens that no expert of a mixture had a place for.
func droppedText(share float64) string {
	if share == 0 {
		return ""
	}
	return fmt.Sprintf(", %.2g %% of tokens dropped", 100*share)
}

func metricsText(metrics []task.Metric) string {
	parts := make([]string, len(metrics))
	for i, m := range metrics {
		parts[i] = fmt.Sprintf("%s %.4f", m.Name, m.Value)
	}
	return strings.Join(parts, ", ")
}

// digest is a hash of a directory's weights; none for a model made from nothing.
func digest(ctx context.Context, dir *checkpoint.Dir) (string, error) {
	if dir.Weights == nil {
		return "", nil
	}
	sums, err := dir.SHA256(ctx, nil)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		all.WriteString(sums[name])
	}
	return all.String(), nil
}
