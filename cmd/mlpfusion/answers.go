package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"mlpfusion/checkpoint"
	"mlpfusion/generate"
	"mlpfusion/metric"
	"mlpfusion/task"
)

// plain makes what flags do not ask for otherwise the way in which answers are scored:
// the most probable token each time.
func (w *writing) plain(f *pflag.FlagSet) {
	o := &w.options
	o.PromptMayRepeat = false
	if !f.Changed("beam") {
		o.Beams, o.LengthPenalty = 1, 1
	}
	if !f.Changed("no-repeat-ngram") {
		o.NoRepeatNGram = 0
	}
	if !f.Changed("max-new-tokens") {
		o.MaxNewTokens = 256
	}
}

// evaluateAnswers writes the last answer of each conversation of the test set, or of the
// dev set if it is asked for or all there is, and counts those that are right.
func (a *app) evaluateAnswers(name string, set *task.Dataset, data *dataFlags, w *writing, dev bool, output string) error {
	split, examples := "test", set.Test
	if len(examples) == 0 || dev {
		split, examples = set.DevName, set.Dev
	}
	if len(examples) == 0 {
		return fmt.Errorf("%s: expected a test or dev set, found none", data.dir)
	}
	examples = task.Few(examples, data.devRows, a.seed)
	w.chat, w.template = true, data.template
	g, err := a.newWriter(name, w)
	if err != nil {
		return err
	}
	prompts, references := make([][]int32, len(examples)), make([]string, len(examples))
	for i, e := range examples {
		turns, answer := e.LastAnswer()
		references[i] = answer
		if prompts[i], err = g.answering(turns); err != nil {
			return fmt.Errorf("%s: %w", e.Place, err)
		}
	}
	a.ui.say("answering the %d conversations of %s", len(examples), split)
	results, err := a.writeBehind(g, prompts, w, generate.Watch{})
	if err != nil {
		return err
	}
	right := 0
	lines := make([]string, len(results))
	for i, r := range results {
		text := g.tok.Decode(r.Tokens)
		if metric.ExactMatch(text, references[i]) {
			right++
		}
		lines[i] = strings.TrimSpace(oneLine(text))
	}
	if output != "" {
		if err := checkpoint.WriteFileAtomic(output, []byte(strings.Join(lines, "\n")+"\n")); err != nil {
			return err
		}
	}
	return a.printScores([]task.Scores{{Split: split, Entries: len(examples), Metrics: []task.Metric{{Name: "exact match", Value: float64(right) / float64(len(examples))}}}})
}
