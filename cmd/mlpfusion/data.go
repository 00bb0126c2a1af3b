package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/tokenize"
)

// dataFlags say which examples a command works on.
type dataFlags struct {
	task, dir  string
	columns    task.Columns
	regression bool
	maxLength  int
	trainRows  int
	devRows    int
}

func (d *dataFlags) add(f *pflag.FlagSet) {
	d.addTask(f)
	f.IntVar(&d.devRows, "dev-rows", 0, "evaluate on so many examples of the dev set only (default all)")
}

// addTask adds the flags that name the data, without those of its use.
func (d *dataFlags) addTask(f *pflag.FlagSet) {
	f.StringVar(&d.task, "task", "", "one of "+strings.Join(task.Names(), ", "))
	f.StringVar(&d.dir, "data", "", "folder of the data set: GLUE's TSV files, the hub's Parquet files, or CSV, TSV, JSONL")
	f.StringVar(&d.columns.Text, "text", "", "column of the text (task text)")
	f.StringVar(&d.columns.Pair, "text-pair", "", "column of the second text (task text)")
	f.StringVar(&d.columns.Label, "label", "", "column of the label (task text)")
	f.BoolVar(&d.regression, "regression", false, "labels are numbers to be predicted (task text)")
	f.IntVar(&d.maxLength, "max-length", 128, "tokens of an example; longer ones are cut")
}

// load reads the data set.
func (a *app) load(d *dataFlags) (*task.Dataset, error) {
	if d.task == "" || d.dir == "" {
		return nil, usageError{fmt.Errorf("expected --task and --data, found %s", missing(d))}
	}
	spec, err := task.Lookup(d.task)
	if err != nil {
		return nil, usageError{err}
	}
	if spec.Generation {
		return nil, usageError{fmt.Errorf("task: expected one with labels, found %s, which is generation", spec.Name)}
	}
	if d.regression {
		spec = spec.AsRegression()
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
	if len(set.Dev) == 0 && len(set.Train) > 0 {
		const share = 0.1
		parts := task.SplitExamples(a.seed, set.Train, false, share, 1-share)
		set.Dev, set.Train, set.DevName = parts[0], parts[1], "held out"
		if len(set.Dev) == 0 {
			return nil, fmt.Errorf("%s: expected a dev set, or enough training examples to hold some out, found %d", d.dir, len(set.Train))
		}
		a.ui.say("%s: no dev set there; %d of the training examples are held out for it", d.dir, len(set.Dev))
	}
	return set, nil
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

// tokenizer reads a model's tokenizer, whose ids must all be the model's.
func tokenizer(dir string, m *model.Config) (tokenize.Tokenizer, error) {
	tok, err := tokenize.Load(dir)
	if err != nil {
		return nil, err
	}
	if n := tok.VocabSize(); n > m.Vocab {
		return nil, fmt.Errorf("%s: expected a tokenizer of at most the model's %d entries, found %d", dir, m.Vocab, n)
	}
	return tok, nil
}

// encode tokenizes examples for a model, the first rows of a seeded shuffle when
// rows is not 0.
func (a *app) encode(name, dir string, m *model.Config, maxTokens int, ex []task.Example, rows, maxLength int) (*task.Encoded, error) {
	tok, err := tokenizer(dir, m)
	if err != nil {
		return nil, err
	}
	if rows > 0 && rows < len(ex) {
		order := task.Shuffle(a.seed, 0, len(ex))[:rows]
		few := make([]task.Example, rows)
		for i, r := range order {
			few[i] = ex[r]
		}
		ex = few
	}
	bar := a.ui.progress("tokenize "+name, "example", len(ex))
	defer bar.end()
	return task.Encode(tok, ex, min(maxLength, maxTokens), func(done, total int) { bar.set(done, total, "") }), nil
}
