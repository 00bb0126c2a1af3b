package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// prediction is one line's result.
type prediction struct {
	Text  string    `json:"text"`
	Label string    `json:"label,omitempty"`
	Score float64   `json:"score"`            // of the label, or the regression's value
	All   []float64 `json:"scores,omitempty"` // of all labels, in the model's order
}

func (a *app) predictCommand() *cobra.Command {
	maxLength := 128
	c := &cobra.Command{
		Use:   "predict MODEL",
		Short: "Label sentences read from standard input, one a line",
		Long: `Label sentences read from standard input, one a line; two texts on a line are
separated by a tab. Prints label, score and text, or a JSON object a line.`,
		Example: `  mlpfusion predict tuned < sentences.txt
  echo "a charming and often affecting journey" | mlpfusion predict tuned --json`,
		Args: exactly("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := atLeast(c.Flags(), shortest, "max-length"); err != nil {
				return err
			}
			return a.predict(args[0], maxLength)
		},
	}
	c.Flags().IntVar(&maxLength, "max-length", maxLength, "tokens of an example; longer ones are cut")
	return c
}

func (a *app) predict(name string, maxLength int) error {
	dir, err := a.open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		return err
	}
	if m.Config.Head == model.LanguageModel {
		return fmt.Errorf("%s: expected a model that labels texts, found a language model: see the commands eval and generate", dir.Path)
	}
	tok, err := tokenizer(dir.Path, m.Config)
	if err != nil {
		return err
	}
	eval := train.NewEvaluator(a.pool, kernel.FP32)
	in := scanLines(a.ctx, os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	const together = 256 // lines labelled at once
	var lines []task.Example
	flush := func() error {
		if len(lines) == 0 {
			return nil
		}
		enc := task.Encode(tok, lines, min(maxLength, m.MaxLength()), nil)
		logits, err := eval.Logits(a.ctx, m, enc, nil)
		if err != nil {
			return err
		}
		n := len(m.Config.Labels)
		for i, ex := range lines {
			if err := a.printPrediction(out, m.Config, ex, logits[i*n:(i+1)*n]); err != nil {
				return err
			}
		}
		lines = lines[:0]
		return out.Flush()
	}
	for line := range in.lines {
		text, pair, has := strings.Cut(line, "\t")
		lines = append(lines, task.Example{Text: text, Pair: pair, HasPair: has})
		if len(lines) == together || len(in.lines) == 0 { // whoever types waits for the answer
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if in.err != nil {
		return fmt.Errorf("standard input: %w", in.err)
	}
	return flush()
}

func (a *app) printPrediction(out *bufio.Writer, cfg *model.Config, ex task.Example, logits []float32) error {
	p := prediction{Text: ex.Text, Score: float64(logits[0])}
	if cfg.Head == model.Classification {
		best := 0
		for _, v := range softmax(logits) {
			p.All = append(p.All, v)
			if v > p.All[best] {
				best = len(p.All) - 1
			}
		}
		p.Label, p.Score = cfg.Labels[best], p.All[best]
	}
	if a.ui.json {
		return json.NewEncoder(out).Encode(p)
	}
	_, err := fmt.Fprintf(out, "%s\t%.4f\t%s\n", p.Label, p.Score, ex.Text)
	return err
}

func softmax(x []float32) []float64 {
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	p := make([]float64, len(x))
	var sum float64
	for i, v := range x {
		p[i] = math.Exp(float64(v - top))
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}
