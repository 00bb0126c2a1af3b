package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mlpfusion/checkpoint"
	"mlpfusion/generate"
	"mlpfusion/task"
)

func (a *app) scoreCommand() *cobra.Command {
	data := &dataFlags{}
	var dev bool
	c := &cobra.Command{
		Use:   "score TEXTS",
		Short: "Score written texts against a task's references",
		Long: `Score texts, a line for each entry of the test set in its order, as users of
WebNLG and E2E do. Where there is no test set, the dev set counts. METEOR has
exact and stem matches only, so it is lower than with synonyms.`,
		Example: `  mlpfusion score written.txt --task webnlg --data webnlg_challenge_2017
  mlpfusion score written.txt --task e2e --data e2e-dataset --json`,
		Args: exactly("TEXTS"),
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := a.load(data)
			if err != nil {
				return err
			}
			_, entries, err := testEntries(set, data, dev)
			if err != nil {
				return err
			}
			lines, err := a.readLines(args[0])
			if err != nil {
				return err
			}
			scores, err := task.ScoreTexts(set.Spec, entries, lines)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.printScores(scores)
		},
	}
	data.addTask(c.Flags())
	c.Flags().BoolVar(&dev, "dev", false, "the texts are of the dev set")
	return c
}

// testEntries returns the entries of the test set, or of the dev set if it is
// asked for or all there is.
func testEntries(set *task.Dataset, data *dataFlags, dev bool) (name string, entries []task.Entry, err error) {
	if !set.Spec.Generation {
		return "", nil, usageError{fmt.Errorf("task: expected one of generation, webnlg or e2e, found %s", set.Spec.Name)}
	}
	if len(set.Test) > 0 && !dev {
		return "test", task.Entries(set.Test), nil
	}
	if len(set.Dev) == 0 {
		return "", nil, fmt.Errorf("%s: expected a test or dev set, found none", data.dir)
	}
	return set.DevName, task.Entries(set.Dev), nil
}

func (a *app) printScores(scores []task.Scores) error {
	return a.ui.result(scores, func(w io.Writer) {
		head := []string{"split", "entries"}
		for _, m := range scores[0].Metrics {
			head = append(head, m.Name)
		}
		var rows [][]string
		for _, s := range scores {
			row := []string{s.Split, fmt.Sprint(s.Entries)}
			for _, m := range s.Metrics {
				row = append(row, fmt.Sprintf("%.4f", m.Value))
			}
			rows = append(rows, row)
		}
		table(w, head, rows)
	})
}

// paperWriting is how the papers write texts to be scored: LoRA's and MLP
// Fusion's settings for WebNLG and E2E.
func paperWriting() *writing {
	return &writing{options: generate.Options{MaxNewTokens: 64, Beams: 5, LengthPenalty: 0.8, NoRepeatNGram: 4, PromptMayRepeat: true}}
}

// evaluateTexts writes a text to each entry of the test set and scores them;
// output, unless empty, is the file that keeps them, a line each.
func (a *app) evaluateTexts(name string, data *dataFlags, w *writing, dev bool, output string) error {
	set, err := a.load(data)
	if err != nil {
		return err
	}
	if set.Spec.Chat {
		return a.evaluateAnswers(name, set, data, w, dev, output)
	}
	split, entries, err := testEntries(set, data, dev)
	if err != nil {
		return err
	}
	entries = task.Few(entries, data.devRows, a.seed)
	g, err := a.newWriter(name, w)
	if err != nil {
		return err
	}
	prompts := make([]string, len(entries))
	for i, e := range entries {
		prompts[i] = e.Prompt
	}
	a.ui.say("writing to the %d entries of %s", len(entries), split)
	results, err := a.write(g, prompts, true, w, generate.Watch{})
	if err != nil {
		return err
	}
	written := make([]string, len(results))
	for i, r := range results {
		written[i] = strings.TrimSpace(oneLine(g.tok.Decode(r.Tokens)))
	}
	if output != "" {
		if err := checkpoint.WriteFileAtomic(output, []byte(strings.Join(written, "\n")+"\n")); err != nil {
			return err
		}
	}
	scores, err := task.ScoreTexts(set.Spec, entries, written)
	if err != nil {
		return err
	}
	return a.printScores(scores)
}
