package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/tokenize"
	"mlpfusion/train"
)

// dataFlags say which examples a command works on.
type dataFlags struct {
	task, dir  string
	columns    task.Columns
	regression bool
	written    bool
	maxLength  int
	trainRows  int
	devRows    int
	flags      *pflag.FlagSet
}

// length is the largest number of tokens of a task's sequences.
func (d *dataFlags) length(spec task.Spec) int {
	if spec.LanguageModel() && !d.flags.Changed("max-length") {
		return 512
	}
	return d.maxLength
}

func (d *dataFlags) add(f *pflag.FlagSet) {
	d.addTask(f)
	f.IntVar(&d.devRows, "dev-rows", 0, "evaluate on so many examples of the dev set only (default all)")
}

// addTask adds the flags that name the data, without those of its use.
func (d *dataFlags) addTask(f *pflag.FlagSet) {
	d.flags = f
	f.StringVar(&d.task, "task", "", "one of "+strings.Join(task.Names(), ", "))
	f.StringVar(&d.dir, "data", "", "folder of the data set: GLUE's TSV files, the hub's Parquet files, CSV, TSV or JSONL; WebNLG's and E2E's own files; text files (task lm)")
	f.StringVar(&d.columns.Text, "text", "", "column of the text (task text)")
	f.StringVar(&d.columns.Pair, "text-pair", "", "column of the second text (task text)")
	f.StringVar(&d.columns.Label, "label", "", "column of the label (task text)")
	f.BoolVar(&d.regression, "regression", false, "labels are numbers to be predicted (task text)")
	f.BoolVar(&d.written, "text-to-text", false, "labels are words that the decoder writes (T5, Switch Transformers), not classes of a label head")
	f.IntVar(&d.maxLength, "max-length", 128, "tokens of an example, longer ones are cut; of tasks for language models 512 unless given")
}

// shortest is the least --max-length: the marks before, between and behind a pair
// of texts, and a token.
const shortest = 4

// check refuses numbers that are out of range.
func (d *dataFlags) check() error {
	if err := atLeast(d.flags, shortest, "max-length"); err != nil {
		return err
	}
	for _, name := range []string{"train-rows", "dev-rows"} {
		if d.flags.Lookup(name) != nil {
			if err := atLeast(d.flags, 0, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads the data set.
func (a *app) load(d *dataFlags) (*task.Dataset, error) {
	if d.task == "" || d.dir == "" {
		return nil, usageError{fmt.Errorf("expected --task and --data, found %s", missing(d))}
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	spec, err := task.Lookup(d.task)
	if err != nil {
		return nil, usageError{err}
	}
	if d.regression {
		if spec.LanguageModel() {
			return nil, usageError{fmt.Errorf("regression: expected a task with labels, found %s", spec.Name)}
		}
		spec = spec.AsRegression()
	}
	if c := d.columns; spec.Name == "webnlg" && c != (task.Columns{}) {
		return nil, usageError{fmt.Errorf("text, text-pair, label: expected a task that is read by columns, found %s", spec.Name)}
	}
	if d.written {
		if spec, err = spec.AsWritten(); err != nil {
			return nil, usageError{err}
		}
	}
	set, err := task.Load(spec, d.dir, d.columns)
	if err != nil {
		return nil, err
	}
	if set.Skipped > 0 {
		what := "rows that lack a column were left out, as GLUE does"
		if spec.Generation {
			what = "texts that are not marked as good were left out"
		}
		a.ui.say("%s: %d %s", d.dir, set.Skipped, what)
	}
	if set.HoldOut(a.seed) {
		if len(set.Dev) == 0 {
			return nil, fmt.Errorf("%s: expected a dev set, or enough training examples to hold some out, found %d", d.dir, len(set.Train))
		}
		a.ui.say("%s: no dev set there; %d of the training examples are held out for it", d.dir, len(set.Dev))
	}
	return set, nil
}

// orderClasses puts the classes of a data set in the order that a checkpoint has
// them in.
func (a *app) orderClasses(set *task.Dataset, dir *checkpoint.Dir) error {
	cfg, err := model.ReadConfig(dir)
	if err != nil || set.Spec.Labels == nil {
		return err
	}
	places, known := set.Spec.ClassOrder(cfg.Labels)
	if !known {
		a.ui.say("%s: its classes are called %s, those of the data %s: taken to be the same in this order", dir.Path, strings.Join(cfg.Labels, ", "), strings.Join(set.Spec.Labels, ", "))
	}
	set.Reorder(places)
	return nil
}

func missing(d *dataFlags) string {
	switch {
	case d.task == "" && d.dir == "":
		return "neither"
	case d.task == "":
		return "no --task"
	}
	return "no --data"
}

// tokenizer reads a model's tokenizer, whose ids but for added tokens must all be
// the model's.
func tokenizer(dir string, m *model.Config) (tokenize.Tokenizer, error) {
	tok, err := tokenize.Load(dir)
	if err != nil {
		return nil, err
	}
	if n := tok.BaseSize(); n > m.Vocab {
		return nil, fmt.Errorf("%s: expected a tokenizer of at most the model's %d entries, found %d", dir, m.Vocab, n)
	}
	return tok, nil
}

// encode tokenizes a task's examples for a model, the first rows of a seeded
// shuffle when rows is not 0.
func (a *app) encode(name, dir string, spec task.Spec, m *model.Config, ex []task.Example, rows, length int) (*task.Encoded, error) {
	tok, err := tokenizer(dir, m)
	if err != nil {
		return nil, err
	}
	n := len(ex)
	if rows > 0 {
		n = min(rows, n)
	}
	bar := a.ui.progress("tokenize "+name, "example", n)
	defer bar.end()
	e, err := train.Encode(tok, spec, m, ex, train.EncodeOptions{Length: min(length, m.MaxLength()), Rows: rows, Seed: a.seed,
		Progress: func(done, total int) { bar.set(done, total, "") }})
	if err != nil {
		err = fmt.Errorf("%s: %w", dir, err)
	}
	return e, err
}
