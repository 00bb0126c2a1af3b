package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlpfusion/convert"
	"mlpfusion/fusion"
	"mlpfusion/internal/choice"
	"mlpfusion/model"
	"mlpfusion/shrink"
	"mlpfusion/task"
	"mlpfusion/train"
)

// shrinking is what the command shrink is asked for.
type shrinking struct {
	model, out        string
	data              dataFlags
	config            shrink.Config
	goal              shrink.Goal
	calibrationRows   int
	resume, overwrite bool
}

func (a *app) shrinkCommand() *cobra.Command {
	s := &shrinking{config: shrink.Config{Train: train.Config{Schedule: train.Linear, Warmup: 0.06, Optimizer: train.PaperOptimizer, SnapshotEvery: 200}}}
	cfg := &s.config.Train
	var precision string
	c := &cobra.Command{
		Use:   "shrink MODEL OUT",
		Short: "From a model and a file to a smaller fine-tuned model, in one command",
		Long: `Fine-tune MODEL on the data, compress all its MLP blocks, train the smaller model
with the original's logits, and write it to OUT as what plain transformers loads.

The width is the smallest whose score on the held-out rows is within --within
points of the original's (of perplexity: percent); which widths are tried follows
from the blocks' error curves. --size or --width ask for one size instead.
Rows to judge by are the data's dev set, or a tenth held out.

The smaller model goes on from what the original has learnt, so it has seen the
data twice as often.

OUT.shrink keeps every stage: the fine-tuned original and each width that was
tried. After a stop or a kill the same command goes on with --resume, and so it
does with another --within.`,
		Example: `  mlpfusion shrink MODEL small --data messages.csv --text message --label category
  mlpfusion shrink MODEL small-sst2 --data glue/SST-2 --task sst2 --within 0.5
  mlpfusion shrink gpt2 small-gpt2 --data texts --task lm --size 0.8`,
		Args: exactly("MODEL", "OUT"),
	}
	f := c.Flags()
	c.RunE = func(_ *cobra.Command, args []string) error {
		s.model, s.out = args[0], args[1]
		cfg.Seed = a.seed
		var err error
		if cfg.BF16, err = bfloat16(precision); err != nil {
			return err
		}
		if err := s.check(f); err != nil {
			return err
		}
		result, err := a.shrink(s)
		if err != nil {
			return err
		}
		return a.ui.result(result, func(w io.Writer) { s.show(w, result) })
	}
	s.data.add(f)
	f.Lookup("task").Usage += " (default text)"
	f.IntVar(&s.data.trainRows, "train-rows", 0, "train on this many examples, chosen by the seed (default 0, for all)")
	f.Float64Var(&s.goal.Within, "within", 1, "points of the score, of perplexity percent, that may be lost")
	f.Float64Var(&s.goal.Size, "size", 0, "instead: the share of the original's parameters to keep")
	f.IntVar(&s.goal.Width, "width", 0, "instead: hidden units to keep in each block")
	f.StringVar(&s.config.Method, "method", "calibrated", "how to compress: "+strings.Join(fusion.Names(shrink.Fits), ", "))
	f.IntVar(&s.calibrationRows, "calibration-rows", 1200, calibrationRowsHelp)
	f.Float64SliceVar(&cfg.LR, "lr", nil, "learning `rates` to try (default 1e-4 at a hidden size of 384, less for wider models in proportion)")
	f.Lookup("lr").DefValue = ""
	f.IntVar(&cfg.Epochs, "epochs", 0, "passes over the training set (default 3; up to 20 where that makes fewer than 200 steps)")
	f.IntVar(&cfg.Batch, "batch", 0, "sequences of a batch (default 32; 64 for Switch Transformers; 8 for language models)")
	f.StringVar(&precision, "precision", "fp32", "fp32, or bf16 for bfloat16 products with float32 weights and sums")
	f.Float64Var(&s.config.Distill, "distill-weight", 0.5, "the original's share in the loss; the labels have the rest")
	f.Float64Var(&s.config.Temperature, "temperature", 2, "by which the logits of both are divided for the original's share")
	f.BoolVar(&s.resume, "resume", false, "go on with the stages that are there")
	f.BoolVar(&s.overwrite, "overwrite", false, "replace OUT when it is there")
	arrange(c,
		section{"Data", "data text label task train-rows dev-rows"},
		section{"How small", "within size width"},
		section{"Compression", "method calibration-rows"},
		section{"Training", "lr epochs batch precision distill-weight temperature"},
		section{"How the data is read", "max-length text-pair regression text-to-text loss chat-template"},
		section{"The run", "overwrite resume help"})
	return c
}

// check refuses flags that are out of range or go against each other.
func (s *shrinking) check(f *pflag.FlagSet) error {
	if _, err := fusion.Lookup(s.config.Method); err != nil {
		return usageError{fmt.Errorf("method: %w", choice.Unknown(s.config.Method, fusion.Names(shrink.Fits)))}
	}
	goals := 0
	for _, name := range []string{"within", "size", "width"} {
		if f.Changed(name) {
			goals++
		}
	}
	if goals > 1 {
		return usageError{fmt.Errorf("expected one of --within, --size and --width, found %d of them", goals)}
	}
	if f.Changed("size") && !(s.goal.Size > 0 && s.goal.Size < 1) {
		return usageError{fmt.Errorf("size: expected a share above 0 and below 1, found %g", s.goal.Size)}
	}
	if !(s.config.Distill >= 0 && s.config.Distill <= 1) {
		return usageError{fmt.Errorf("distill-weight: expected a share from 0 to 1, found %g", s.config.Distill)}
	}
	for _, lr := range s.config.Train.LR {
		if !(lr > 0) || math.IsInf(lr, 1) {
			return usageError{fmt.Errorf("lr: expected finite numbers above 0, found %g", lr)}
		}
	}
	if f.Changed("lr") && len(s.config.Train.LR) == 0 {
		return usageError{errors.New("lr: expected numbers above 0, found none")}
	}
	if s.data.task == "" {
		s.data.task = "text"
	}
	return cmp.Or(atLeast(f, 0, "within", "calibration-rows"), atLeast(f, 1, "width", "epochs", "batch"), above0(f, "temperature"))
}

// shrink runs the stages.
func (a *app) shrink(s *shrinking) (*shrink.Result, error) {
	if err := apart(s.out, s.model); err != nil {
		return nil, err
	}
	dir, err := a.open(s.model)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	r := &shrink.Runner{Config: s.config, Goal: s.goal, Source: dir, Name: s.model, Out: s.out, Resume: s.resume, Overwrite: s.overwrite, Pool: a.pool, Threads: a.threads}
	if err := a.shrinkData(s, r); err != nil {
		return nil, err
	}
	if r.Model, err = digest(a.ctx, dir); err != nil {
		return nil, err
	}
	line := &stages{u: &a.ui}
	r.Observer = shrink.Observer{Note: a.ui.say, Progress: line.set}
	a.kept, a.resume = filepath.Clean(s.out)+shrink.WorkSuffix, "--resume"
	result, err := r.Run(a.ctx)
	if err != nil {
		line.stop()
		return nil, err
	}
	line.end()
	for _, m := range append(result.Tried, result.Original) {
		m.Rows = nil // which are for the next run
	}
	return result, nil
}

// shrinkData reads the data, and fills in what depends on them and on the model.
func (a *app) shrinkData(s *shrinking, r *shrink.Runner) error {
	set, err := a.load(&s.data)
	if err != nil {
		return err
	}
	if len(set.Train) == 0 {
		return fmt.Errorf("%s: expected a train file, found none", s.data.dir)
	}
	head, why, err := fitHead(set, r.Source)
	if err != nil {
		return err
	}
	if why != "" {
		a.ui.say("a new classification head is made%s", why)
	}
	head.Seed = a.seed
	cfg, err := model.ReadConfig(r.Source)
	if err != nil {
		return err
	}
	r.Head, r.Data.Spec = head, set.Spec
	length := s.data.length(set.Spec)
	if r.Data.Train, err = a.encode("train", r.Source.Path, set.Spec, cfg, set.Train, s.data.trainRows, length); err != nil {
		return err
	}
	if r.Data.Dev, err = a.encode("held out", r.Source.Path, set.Spec, cfg, set.Dev, s.data.devRows, length); err != nil {
		return err
	}
	texts, err := a.encode("calibration", r.Source.Path, set.Spec, cfg, set.Train, s.data.calibrationRows(set.Spec, s.calibrationRows), length)
	if err != nil {
		return err
	}
	r.Data.Calibration = convert.Texts{Name: fmt.Sprintf("%d rows of %s", texts.Len(), set.Spec.Name), Head: head, Batches: train.Batches(texts)}
	head.NewHead = true
	cfg.Head = head.Head
	r.Sample = sample(cfg, a.seed)
	t := &r.Config.Train
	if set.Spec.LanguageModel() && t.Batch == 0 {
		t.Batch = 8
	}
	if len(t.LR) == 0 {
		t.LR = []float64{usualRate(cfg.Hidden)}
	}
	*t = t.For(cfg)
	if t.Epochs == 0 {
		const usual, most, steps = 3, 20, 200
		perEpoch := (r.Data.Train.Len() + t.Batch - 1) / t.Batch
		t.Epochs = max(usual, min(most, (steps+perEpoch-1)/perEpoch))
	}
	return nil
}

// usualRate is the learning rate that docs/results.md found best for MiniLM, for other
// hidden sizes in inverse proportion, to two digits.
func usualRate(hidden int) float64 {
	rate, err := strconv.ParseFloat(fmt.Sprintf("%.1e", 1e-4*384/float64(hidden)), 64)
	if err != nil {
		panic(err) // of what was just printed
	}
	return rate
}

// show prints what came of it, beside the original, and what to do next.
func (s *shrinking) show(w io.Writer, r *shrink.Result) {
	o, m := r.Original, r.Small
	metric := o.Metrics[0].Name
	scale, unit := 100.0, "points"
	score := func(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
	if metric != task.Accuracy && metric != task.F1 {
		scale, unit = 1, ""
		score = func(v float64) string { return fmt.Sprintf("%.4g", v) }
	}
	ratio := fmt.Sprintf("%.2f×", m.RowsPerSecond/o.RowsPerSecond)
	rows := [][]string{
		{metric, score(o.Metrics[0].Value), score(m.Metrics[0].Value), strings.TrimSpace(fmt.Sprintf("%+.3g %s", scale*m.Difference.Mean, unit))},
		{"95 % interval", score(o.Low) + " to " + score(o.High), score(m.Low) + " to " + score(m.High),
			fmt.Sprintf("%+.3g to %+.3g", scale*(m.Difference.Mean-m.Difference.Half), scale*(m.Difference.Mean+m.Difference.Half))},
	}
	if r.Majority != nil {
		rows = append(rows, []string{"the most frequent class", score(*r.Majority), score(*r.Majority), ""})
	}
	rows = append(rows,
		[]string{"hidden units a block", fmt.Sprint(o.Width), fmt.Sprint(m.Width), change(float64(o.Width), float64(m.Width))},
		[]string{"parameters", significant(float64(o.Parameters)), significant(float64(m.Parameters)), change(float64(o.Parameters), float64(m.Parameters))},
		[]string{"file", bytesText(o.Bytes), bytesText(m.Bytes), change(float64(o.Bytes), float64(m.Bytes))},
		[]string{"rows a second, here", significant(o.RowsPerSecond), significant(m.RowsPerSecond), ratio})
	fmt.Fprintln(w)
	table(w, []string{"", "original", "small", ""}, rows)
	fmt.Fprintf(w, "\n  Scores are of the same %d held-out rows, by which the best epoch", r.Rows)
	if len(r.Tried) > 1 || s.goal.Width == 0 && s.goal.Size == 0 {
		fmt.Fprint(w, " and the width were chosen too")
	} else {
		fmt.Fprint(w, " was chosen too")
	}
	if m.Difference.Clear() {
		fmt.Fprintf(w, ";\n  the difference is more than the noise of this many rows.\n")
	} else {
		fmt.Fprintf(w, ";\n  this many rows do not tell a difference of %.2g %s from none.\n", scale*m.Difference.Half, cmp.Or(unit, "or less"))
	}
	if len(r.Tried) > 1 {
		var tried []string
		for _, t := range r.Tried {
			tried = append(tried, fmt.Sprintf("%d: %s", t.Width, score(t.Metrics[0].Value)))
		}
		fmt.Fprintf(w, "  Tried, by units a block: %s.\n", strings.Join(tried, ", "))
	}
	name, work := filepath.Clean(s.out), filepath.Clean(s.out)+shrink.WorkSuffix
	fmt.Fprintf(w, "  %s keeps all stages, for --resume with another --within; remove it when done.\n\n  Next:\n", work)
	if metric == task.Perplexity {
		fmt.Fprintf(w, "    mlpfusion generate %s --prompt \"…\"\n    python: AutoModelForCausalLM.from_pretrained(%q)\n", name, name)
		return
	}
	fmt.Fprintf(w, "    echo \"…\" | mlpfusion predict %s\n", name)
	fmt.Fprintf(w, "    mlpfusion eval %s --task %s --data NEW%s    (rows that chose neither epoch nor width)\n", name, s.data.task, s.columns())
	fmt.Fprintf(w, "    python: AutoModelForSequenceClassification.from_pretrained(%q)\n", name)
}

// columns are the flags that name the data's columns, as given.
func (s *shrinking) columns() (flags string) {
	for _, c := range []struct{ flag, column string }{{"text", s.data.columns.Text}, {"text-pair", s.data.columns.Pair}, {"label", s.data.columns.Label}} {
		if c.column != "" {
			flags += fmt.Sprintf(" --%s %q", c.flag, c.column)
		}
	}
	return flags
}
