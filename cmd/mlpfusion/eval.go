package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

func (a *app) evalCommand() *cobra.Command {
	var data dataFlags
	var texts, dev, measure bool
	var stride int
	var output, split string
	w := paperWriting()
	c := &cobra.Command{
		Use:   "eval MODEL",
		Short: "Score a fine-tuned model on a task's dev set, or another split",
		Long: `Score a fine-tuned model on a task's dev set; --split names another one, and of a
file all rows are scored. Without a dev set it is what training holds out too: the
tenth of the rows that a fixed rule picks. Beside the score each class has its own,
with the classes that its rows were taken for.

With --generate a language model writes a text to each entry of the test set
instead (webnlg, e2e; the dev set where there is no other), which are scored
against the references: BLEU, METEOR (exact and stem matches only) and TER, for
WebNLG's seen and unseen categories and all.

Of task chat it writes the last answer of each conversation, the most probable token
each time, and the score is the share of those that are right: by the number behind
####, or the last number, where the reference has one behind ####, otherwise by the text.

With --perplexity --data names a text file, and a language model is measured on it
as WikiText-2's published tables do: the file is one string, in windows of
--max-length tokens (2,048, or the most that the model reads), each read by itself.`,
		Example: `  mlpfusion eval tuned --task sst2 --data glue/SST-2
  mlpfusion eval tuned --task mnli --data glue/MNLI --json
  mlpfusion eval tuned --task sst2 --data glue/SST-2 --split train
  mlpfusion eval tuned --task text --data messages.csv --text message --label category
  mlpfusion eval tuned --task webnlg --data webnlg_challenge_2017 --generate --output written.txt
  mlpfusion eval tuned --task chat --data chats.jsonl --generate
  mlpfusion eval MODEL --perplexity --data wiki.test.raw --json`,
		Args: exactly("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkPerplexity(c.Flags(), measure); err != nil {
				return err
			}
			if measure {
				length := 0
				if c.Flags().Changed("max-length") {
					length = data.maxLength
				}
				return a.evaluatePerplexity(args[0], data.dir, length, stride, data.devRows)
			}
			if texts {
				if split != "" {
					return usageError{errors.New("split: expected none with --generate, which writes to the test set, or with --dev to the dev set")}
				}
				if strings.EqualFold(data.task, "chat") {
					w.plain(c.Flags())
				}
				if err := w.check(c.Flags(), a.seed); err != nil {
					return err
				}
				return a.evaluateTexts(args[0], &data, w, dev, output)
			}
			for _, flag := range writingFlags {
				if c.Flags().Changed(flag) {
					return usageError{fmt.Errorf("%s: expected with --generate only", flag)}
				}
			}
			return a.evaluate(args[0], &data, split)
		},
	}
	data.add(c.Flags())
	c.Flags().StringVar(&split, "split", "", "split to score: train, dev, test or the name of another file in the folder (default dev)")
	c.Flags().BoolVar(&texts, "generate", false, "write texts and score them")
	c.Flags().BoolVar(&dev, "dev", false, "with --generate: write to the dev set even if there is a test set")
	c.Flags().StringVar(&output, "output", "", "with --generate: file for the texts, a line each")
	c.Flags().BoolVar(&measure, "perplexity", false, "measure a language model on the text file --data; --dev-rows counts its windows")
	c.Flags().IntVar(&stride, "stride", 0, "with --perplexity: tokens from a window's begin to the next (default all of a window's)")
	w.add(c.Flags())
	a.addAdapter(c.Flags())
	arrange(c,
		section{"Data", "task data split dev-rows adapter"},
		section{"Perplexity", "perplexity stride"},
		section{"Writing texts", "generate output dev beam length-penalty early-stopping max-new-tokens min-new-tokens no-repeat-ngram repetition-penalty batch precision"},
		columnSection,
		section{"Help", "help"})
	return c
}

// scores is one split's result.
type scores struct {
	Split     string            `json:"split"`
	Examples  int               `json:"examples"`
	Metrics   []task.Metric     `json:"metrics"`
	Classes   []task.ClassScore `json:"classes,omitempty"`
	Confusion [][]int           `json:"confusion,omitempty"`  // [class][predicted]
	Trained   int               `json:"trained_on,omitempty"` // examples that the model was trained on
	Rate      float64           `json:"examples_per_second"`
	Dropped   float64           `json:"dropped,omitempty"` // share of tokens beyond their expert's capacity
}

func (a *app) evaluate(name string, data *dataFlags, split string) error {
	dir, err := a.open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	set, err := a.loadSplit(data, split, dir)
	if err != nil {
		return err
	}
	m, err := a.loadAdapted(dir, train.HeadFor(set.Spec))
	if err != nil {
		return err
	}
	trained, err := task.ReadDigests(cmp.Or(a.adapter, dir.Path))
	if err != nil {
		return err
	}
	var results []scores
	eval := train.NewEvaluator(a.pool, kernel.FP32)
	var splits []task.Split
	if len(set.Dev) > 0 {
		splits = append(splits, task.Split{Name: set.DevName, Examples: set.Dev})
	}
	for _, split := range append(splits, set.Extra...) {
		enc, err := a.encode(split.Name, dir.Path, set.Spec, m.Config, split.Examples, data.devRows, data.length(set.Spec))
		if err != nil {
			return err
		}
		bar := a.ui.progress("evaluate "+split.Name, "example", enc.Len())
		m.ClearUsage()
		start := time.Now()
		scored := task.Few(split.Examples, data.devRows, a.seed)
		r := scores{Split: split.Name, Examples: enc.Len(), Trained: trained.Count(scored)}
		if r.Trained > 0 {
			a.ui.say("%s: the model was trained on %s, so the score says little of new texts", split.Name, share(r.Trained, len(scored)))
		}
		if err := r.score(a.ctx, eval, m, set.Spec, enc, func(done, total int) { bar.set(done, total, "") }); err != nil {
			bar.stop()
			return err
		}
		bar.end()
		r.Rate, r.Dropped = float64(enc.Len())/time.Since(start).Seconds(), droppedShare(m)
		results = append(results, r)
	}
	return a.ui.result(results, func(w io.Writer) {
		head := []string{"split", "examples"}
		for _, m := range results[0].Metrics {
			head = append(head, m.Name)
		}
		var rows [][]string
		for _, r := range results {
			row := []string{r.Split, fmt.Sprint(r.Examples)}
			for _, m := range r.Metrics {
				row = append(row, fmt.Sprintf("%.4f", m.Value))
			}
			rows = append(rows, append(row, significant(r.Rate)))
		}
		table(w, append(head, "examples/s"), rows)
		for _, r := range results {
			r.showClasses(w)
			if text := droppedText(r.Dropped); text != "" {
				fmt.Fprintf(w, "  %s%s\n", r.Split, text)
			}
		}
	})
}

// share is a part of some examples, in words.
func share(part, of int) string {
	if part == of {
		return fmt.Sprintf("all %d examples", of)
	}
	return fmt.Sprintf("%d of the %d examples", part, of)
}

// score fills in the metrics, and of classes how each fares.
func (r *scores) score(ctx context.Context, eval *train.Evaluator, m *model.Model, spec task.Spec, enc *task.Encoded, progress func(done, total int)) (err error) {
	if spec.LanguageModel() || spec.Regression {
		r.Metrics, err = eval.Score(ctx, m, spec, enc, progress)
		return err
	}
	logits, err := eval.Logits(ctx, m, enc, progress)
	if err != nil {
		return err
	}
	if r.Metrics, err = task.Score(spec, logits, enc.Labels); err == nil {
		r.Confusion, r.Classes = task.Confusion(spec, logits, enc.Labels)
	}
	return err
}

// showClasses prints each class with what its rows were taken for.
func (r *scores) showClasses(w io.Writer) {
	const most = 20 // columns that a screen may hold
	if len(r.Classes) == 0 {
		return
	}
	head := []string{"class", "rows", "precision", "recall", "f1"}
	var rows [][]string
	wide := len(r.Classes) <= most
	for i, c := range r.Classes {
		row := []string{c.Label, fmt.Sprint(c.Rows), fmt.Sprintf("%.4f", c.Precision), fmt.Sprintf("%.4f", c.Recall), fmt.Sprintf("%.4f", c.F1)}
		if wide {
			head = append(head, "as "+c.Label)
			for _, n := range r.Confusion[i] {
				row = append(row, fmt.Sprint(n))
			}
		}
		rows = append(rows, row)
	}
	fmt.Fprintf(w, "\n  %s\n", r.Split)
	table(w, head, rows)
}

// droppedShare is the share of tokens that were beyond their expert's capacity.
func droppedShare(m *model.Model) float64 {
	seen, dropped := m.Routed()
	if dropped == 0 {
		return 0
	}
	return float64(dropped) / float64(seen+dropped)
}
