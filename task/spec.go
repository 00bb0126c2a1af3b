package task

import (
	"fmt"
	"slices"
	"strings"

	"mlpfusion/chat"
	"mlpfusion/internal/choice"
)

// Example is one row of a data set. In a generation task Text is the prompt and
// Target one of the texts that people wrote for it.
type Example struct {
	Text    string
	Pair    string // the second text, with HasPair
	HasPair bool
	Label   float32 // the class index, or the regression target
	Place   string  // its file and line or row there, for messages

	Target   string // generation: the text to be written
	Entry    int    // generation: counts prompts from 1; its examples have the other texts
	Category string // WebNLG: the category of the entry's triples

	Turns []chat.Message // of a conversation, which has no Text and no Target
}

// Spec says what a task's data looks like and how it is scored.
type Spec struct {
	Name       string
	Labels     []string // class names in the order of their indices; none with Regression
	Regression bool
	Generation bool // texts are to be written to prompts: there are no labels
	Documents  bool // plain text is to be modelled: neither prompts nor labels
	Chat       bool // conversations are to be learnt
	// Written labels are words that a decoder writes (T5's text-to-text form).
	Written bool
	Metrics []string // all that are reported
	Main    string   // the one of Metrics that chooses the best checkpoint

	// The columns of the texts and the label: the names that they have in GLUE's
	// TSV files, in the Hub's files, or elsewhere. The first one found counts.
	Text, Pair, Label []string
	// Plain are the places of the columns in files without a header.
	Plain *Layout
	// Config is the task's folder in the Hub's repository of all tasks.
	Config string
	// Dev are the names of the main development split, Extra those of a further
	// one (MNLI's mismatched).
	Dev, Extra []string
	Test       []string // and of the test split
	// Loss says which words of conversations are learnt, and Template which of a model's
	// templates writes them ("": its default one).
	Loss     chat.Loss
	Template string
	// SkipShort leaves out rows that lack a column instead of refusing the file,
	// as GLUE's own reader does: QQP's published TSV has such rows.
	SkipShort bool
}

// Layout gives the places of the columns, from 0, in a file without a header
// that has at least Columns columns; Pair is -1 for single texts.
type Layout struct{ Columns, Text, Pair, Label int }

// Names of metrics.
const (
	Accuracy = "accuracy"
	F1       = "f1"
	Matthews = "matthews"
	Pearson  = "pearson"
	Spearman = "spearman"
	Distance = "distance" // of hidden states, see train.Tuning; less is better
)

// Classes is the number of labels, which is the number of logits of an example;
// regression has 1.
func (s Spec) Classes() int {
	if s.Regression {
		return 1
	}
	return len(s.Labels)
}

// ByLoss has the loss choose the best weights, and reports it beside the other metrics.
func (s *Spec) ByLoss() {
	if s.Main = Loss; !slices.Contains(s.Metrics, Loss) {
		s.Metrics = append(slices.Clone(s.Metrics), Loss)
	}
}

var textMetrics = []string{Perplexity, Loss}

// LanguageModel tells whether the task is for language models: generation, plain
// text or conversations.
func (s Spec) LanguageModel() bool { return s.Generation || s.Documents || s.Chat }

// genericTask is the task whose data names its classes.
const genericTask = "text"

// The usual names of splits' files.
var (
	trainNames = []string{"train", "trainset"}
	devNames   = []string{"dev", "validation", "valid", "val"}
	testNames  = []string{"test"}
)

// specs are GLUE's tasks (Wang et al. 2019), labels in the order of the Hub's
// integers; the generation tasks WebNLG (Gardent et al. 2017) and E2E (Novikova
// et al. 2017); "lm", language modelling of plain text; "chat", conversations; and the generic task "text", whose labels its training file gives.
var specs = []Spec{
	{Name: "sst2", Labels: []string{"negative", "positive"}, Metrics: []string{Accuracy},
		Text: []string{"sentence"}, Label: []string{"label"}, Config: "sst2", Dev: devNames},
	{Name: "mnli", Labels: []string{"entailment", "neutral", "contradiction"}, Metrics: []string{Accuracy},
		Text: []string{"premise", "sentence1"}, Pair: []string{"hypothesis", "sentence2"}, Label: []string{"gold_label", "label"}, Config: "mnli",
		Dev:   append([]string{"dev_matched", "validation_matched"}, devNames...),
		Extra: []string{"dev_mismatched", "validation_mismatched"}, Test: []string{"test_matched", "test"}},
	{Name: "stsb", Regression: true, Metrics: []string{Pearson, Spearman},
		Text: []string{"sentence1"}, Pair: []string{"sentence2"}, Label: []string{"score", "label"}, Config: "stsb", Dev: devNames,
		Plain: &Layout{Columns: 7, Text: 5, Pair: 6, Label: 4}},
	{Name: "qnli", Labels: []string{"entailment", "not_entailment"}, Metrics: []string{Accuracy},
		Text: []string{"question"}, Pair: []string{"sentence"}, Label: []string{"label"}, Config: "qnli", Dev: devNames},
	{Name: "rte", Labels: []string{"entailment", "not_entailment"}, Metrics: []string{Accuracy},
		Text: []string{"sentence1"}, Pair: []string{"sentence2"}, Label: []string{"label"}, Config: "rte", Dev: devNames},
	{Name: "mrpc", Labels: []string{"not_equivalent", "equivalent"}, Metrics: []string{F1, Accuracy},
		Text: []string{"#1 String", "sentence1"}, Pair: []string{"#2 String", "sentence2"}, Label: []string{"Quality", "label"}, Config: "mrpc", Dev: devNames},
	{Name: "cola", Labels: []string{"unacceptable", "acceptable"}, Metrics: []string{Matthews, Accuracy},
		Text: []string{"sentence"}, Label: []string{"label"}, Config: "cola", Dev: devNames,
		Plain: &Layout{Columns: 4, Text: 3, Pair: -1, Label: 1}},
	{Name: "qqp", Labels: []string{"not_duplicate", "duplicate"}, Metrics: []string{F1, Accuracy},
		Text: []string{"question1"}, Pair: []string{"question2"}, Label: []string{"is_duplicate", "label"}, Config: "qqp", Dev: devNames, SkipShort: true},
	{Name: "webnlg", Generation: true, Metrics: textMetrics, Dev: devNames, Test: testNames},
	{Name: "e2e", Generation: true, Metrics: textMetrics, Text: []string{"mr"}, Label: []string{"ref"},
		Dev: append([]string{"dev", "devset"}, devNames...), Test: []string{"test", "testset_w_refs", "testset"}},
	{Name: "lm", Documents: true, Metrics: textMetrics, Text: []string{"text"}, Dev: devNames, Test: testNames},
	{Name: "chat", Chat: true, Loss: chat.OnAssistant, Metrics: textMetrics, Text: []string{"question"}, Label: []string{"answer"}, Dev: devNames, Test: testNames},
	{Name: genericTask, Metrics: []string{Accuracy}, Text: []string{"text"}, Label: []string{"label"}, Dev: devNames},
}

// Names lists the tasks that Lookup knows.
func Names() []string {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	return names
}

// Lookup returns the task of this name, in any case and with or without the
// hyphen (SST-2). The generic task "text" has no labels yet: Load finds them,
// unless the caller sets Labels, or Regression (see [Spec.AsRegression]).
func Lookup(name string) (Spec, error) {
	plain := strings.ReplaceAll(strings.ToLower(name), "-", "")
	i := slices.IndexFunc(specs, func(s Spec) bool { return s.Name == plain })
	if i < 0 {
		return Spec{}, fmt.Errorf("task: %w", choice.Unknown(name, Names()))
	}
	s := specs[i]
	s.Main = s.Metrics[0]
	if s.Test == nil {
		s.Test = testNames
	}
	return s, nil
}

// AsWritten returns the task with labels as words that a decoder writes. It
// reports a task without labels.
func (s Spec) AsWritten() (Spec, error) {
	if s.Regression || s.LanguageModel() {
		return s, fmt.Errorf("text-to-text: expected a task with labels that are words, found %s", s.Name)
	}
	s.Written = true
	return s, nil
}

// Prompt is the text of an example as T5 was taught to read its tasks: "sst2
// sentence: …", "rte sentence1: … sentence2: …". Of MNLI the hypothesis is first.
func (s Spec) Prompt(e *Example) string {
	column := func(names []string, otherwise string) string {
		for _, n := range names {
			if !strings.ContainsAny(n, " #") {
				return n
			}
		}
		return otherwise
	}
	text := column(s.Text, "sentence1") + ": " + e.Text
	if !e.HasPair {
		return s.Name + " " + text
	}
	pair := column(s.Pair, "sentence2") + ": " + e.Pair
	if s.Name == "mnli" {
		text, pair = pair, text
	}
	return s.Name + " " + text + " " + pair
}

// AsRegression returns the task with numbers as labels, scored by correlation.
func (s Spec) AsRegression() Spec {
	s.Regression, s.Labels = true, nil
	s.Metrics, s.Main = []string{Pearson, Spearman}, Pearson
	return s
}
