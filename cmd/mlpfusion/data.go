package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"mlpfusion/chat"
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
	loss       string
	template   string
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

const calibrationRowsHelp = "training texts to calibrate on, their labels unused, 0 for all; of task lm sequences, by default as many as hold 32,768 tokens"

// calibrationRows is how many texts to calibrate on: rows, but of documents, each of
// which makes many sequences, a number that takes minutes unless the flag is given.
func (d *dataFlags) calibrationRows(spec task.Spec, rows int) int {
	const tokens = 32768
	if f := d.flags.Lookup("calibration-rows"); spec.Documents && f != nil && !f.Changed {
		return max(1, tokens/d.length(spec))
	}
	return rows
}

func (d *dataFlags) add(f *pflag.FlagSet) {
	d.addTask(f)
	f.IntVar(&d.devRows, "dev-rows", 0, "evaluate on this many examples of the dev set only (default 0, for all)")
}

// addTask adds the flags that name the data, without those of its use.
func (d *dataFlags) addTask(f *pflag.FlagSet) {
	d.flags = f
	f.StringVar(&d.task, "task", "", "one of "+strings.Join(task.Names(), ", "))
	f.StringVar(&d.dir, "data", "", "folder of the data set: GLUE's TSV files, the hub's Parquet files, CSV, TSV or JSONL; WebNLG's and E2E's own files; text files (task lm); conversations in JSONL, JSON or Parquet (task chat)")
	f.StringVar(&d.columns.Text, "text", "", "column of the text (task text), or of the question (task chat)")
	f.StringVar(&d.columns.Pair, "text-pair", "", "column of the second text (task text)")
	f.StringVar(&d.columns.Label, "label", "", "column of the label (task text), or of the answer (task chat)")
	f.BoolVar(&d.regression, "regression", false, "labels are numbers to be predicted (task text)")
	f.BoolVar(&d.written, "text-to-text", false, "labels are words that the decoder writes (T5, Switch Transformers), not classes of a label head")
	f.StringVar(&d.loss, "loss", string(chat.OnAssistant), "the words that are learnt of conversations: assistant, all, or last for the last answer alone (task chat)")
	addTemplate(f, &d.template)
	f.IntVar(&d.maxLength, "max-length", 128, "tokens of an example, longer ones are cut; of tasks for language models 512 unless given")
}

// addTemplate adds the flag that names a chat template.
func addTemplate(f *pflag.FlagSet, to *string) {
	f.StringVar(to, "chat-template", "", "another of the model's chat templates, by its `name`, or a file ending in .jinja")
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

// load reads the data set to train on.
func (a *app) load(d *dataFlags) (*task.Dataset, error) {
	set, err := a.read(d, task.Load)
	if err != nil {
		return nil, err
	}
	if set.HoldOut() {
		a.ui.say("%s: no dev set there; %d of the training examples are held out for it", d.dir, len(set.Dev))
	}
	if len(set.Train) > 0 && len(set.Dev) == 0 {
		return nil, fmt.Errorf("%s: expected a dev set, or enough training examples to hold some out, found %d that all read alike", d.dir, len(set.Train))
	}
	return set, nil
}

// read reads what the flags name, by task.Load or its like.
func (a *app) read(d *dataFlags, load func(task.Spec, string, task.Columns) (*task.Dataset, error)) (*task.Dataset, error) {
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
	if err := onlyWith(d.flags, []condition{{"loss", spec.Chat, "--task chat"}, {"chat-template", spec.Chat, "--task chat"}}); err != nil {
		return nil, err
	}
	spec.Template = d.template
	if spec.Chat {
		if spec.Loss, err = chat.ParseLoss(d.loss); err != nil {
			return nil, usageError{fmt.Errorf("loss: %w", err)}
		}
	}
	if spec.Chat && d.columns.Pair != "" {
		return nil, usageError{fmt.Errorf("text-pair: expected a task of pairs, found %s", spec.Name)}
	}
	if d.written {
		if spec, err = spec.AsWritten(); err != nil {
			return nil, usageError{err}
		}
	}
	set, err := load(spec, d.dir, d.columns)
	if err != nil {
		return nil, err
	}
	for _, note := range set.Notes {
		a.ui.say("%s", note)
	}
	if set.Skipped > 0 {
		what := "rows that lack a column were left out, as GLUE does"
		if spec.Generation {
			what = "texts that are not marked as good were left out"
		}
		a.ui.say("%s: %d %s", d.dir, set.Skipped, what)
	}
	return set, nil
}

// loadSplit reads the rows to score a checkpoint on, with its classes.
func (a *app) loadSplit(d *dataFlags, split string, dir *checkpoint.Dir) (*task.Dataset, error) {
	set, err := a.read(d, func(spec task.Spec, path string, cols task.Columns) (*task.Dataset, error) {
		return task.LoadSplit(spec, path, split, cols)
	})
	if err != nil {
		return nil, err
	}
	adapter, err := a.openAdapter()
	if err != nil {
		return nil, err
	}
	defer adapter.Close()
	cfg, err := model.ReadConfig(dir)
	if err == nil {
		err = cfg.TakeHead(adapter)
	}
	if err != nil || set.Spec.Labels == nil || set.Spec.Written || cfg.Head != model.Classification {
		return set, err
	}
	notes, err := set.MatchClasses(cfg.Labels)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.dir, err)
	}
	for _, n := range notes {
		a.ui.say("%s: %s", dir.Path, n)
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
	var template *chat.Template
	if spec.Chat {
		if template, err = a.template(dir, spec.Template, tok); err != nil {
			return nil, err
		}
	}
	n := len(ex)
	if rows > 0 {
		n = min(rows, n)
	}
	bar := a.ui.progress("tokenize "+name, "example", n)
	defer bar.end()
	e, err := train.Encode(tok, spec, m, ex, train.EncodeOptions{Length: min(length, m.MaxLength()), Rows: rows, Seed: a.seed, Template: template,
		Progress: func(done, total int) { bar.set(done, total, "") }})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if e.Cut != nil {
		a.showCut(name, e.Cut, length)
	}
	return e, nil
}

// showCut says what became of conversations that are too long, or that their template
// writes in more than one way.
func (a *app) showCut(name string, cut *task.Cut, length int) {
	if text := cut.String(); text != "" {
		a.ui.say("%s: at most %d tokens: %s", name, length, text)
	}
	if cut.Rows > cut.Conversations {
		a.ui.say("%s: the chat template writes earlier answers in another way than the last: each is learnt by itself, %d answers in %d conversations", name, cut.Rows, cut.Conversations)
	}
}

// template reads a model's chat template, and says once where it has none.
func (a *app) template(model, name string, tok tokenize.Tokenizer) (*chat.Template, error) {
	t, err := chat.Load(model, name, tok)
	if err != nil {
		return nil, err
	}
	t.Now = a.now
	if t.Origin == chat.ChatML && !a.toldChatML {
		a.toldChatML = true
		a.ui.say("%s: no chat template there: ChatML is used", model)
	}
	return t, nil
}
