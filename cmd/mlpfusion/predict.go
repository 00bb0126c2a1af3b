package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/tokenize"
	"mlpfusion/train"
)

// prediction is one text's result.
type prediction struct {
	Text   string      `json:"text"`
	Pair   string      `json:"pair,omitempty"`
	Label  string      `json:"label,omitempty"`
	Score  float64     `json:"score"`            // of the label, or the regression's value
	Scores labelScores `json:"scores,omitempty"` // of all labels, in the model's order
}

// labelScores are labels with their scores; as JSON an object that keeps the order.
type labelScores []labelScore

type labelScore struct {
	label string
	score float64
}

func (s labelScores) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, l := range s {
		name, err := json.Marshal(l.label)
		if err != nil {
			return nil, err
		}
		score, err := json.Marshal(l.score)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, name...), ':'), score...)
	}
	return append(b, '}'), nil
}

// predicting is what the command predict is asked for.
type predicting struct {
	model, data string
	columns     task.Columns
	maxLength   int
}

func (a *app) predictCommand() *cobra.Command {
	var p predicting
	c := &cobra.Command{
		Use:   "predict MODEL",
		Short: "Label texts: lines of standard input, or a file's column",
		Long: `Label the texts that stand in standard input, one a line, two that belong
together with a tab between; or with --data those of a table's column. Prints
label, score and text, or a JSON object a line. Scores are probabilities: they
sum to 1, or each stands alone where config.json's problem_type says
multi_label_classification. Empty lines are left out.`,
		Example: `  mlpfusion predict tuned < sentences.txt
  echo "a charming and often affecting journey" | mlpfusion predict tuned --json
  mlpfusion predict tuned --data messages.csv --text message --json`,
		Args: exactly("MODEL"),
		RunE: func(c *cobra.Command, args []string) error {
			f := c.Flags()
			if err := atLeast(f, shortest, "max-length"); err != nil {
				return err
			}
			table := p.data != ""
			if err := onlyWith(f, []condition{{"text", table, "--data"}, {"text-pair", table, "--data"}}); err != nil {
				return err
			}
			p.model = args[0]
			return a.predict(&p)
		},
	}
	f := c.Flags()
	f.StringVar(&p.data, "data", "", "table with the texts: .csv, .tsv, .jsonl, .json or .parquet (default standard input)")
	f.StringVar(&p.columns.Text, "text", "", "column of the text (default text or sentence)")
	f.StringVar(&p.columns.Pair, "text-pair", "", "column of the second text")
	f.IntVar(&p.maxLength, "max-length", 128, "tokens of an example; longer ones are cut")
	a.addAdapter(f)
	return c
}

func (a *app) predict(p *predicting) error {
	dir, err := a.open(p.model)
	if err != nil {
		return err
	}
	defer dir.Close()
	m, err := a.loadAdapted(dir, model.LoadOptions{})
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
	probabilities := softmax
	if problem, err := dir.Config.String("problem_type"); err == nil && problem == "multi_label_classification" {
		probabilities = sigmoids
	}
	eval := train.NewEvaluator(a.pool, kernel.FP32)
	out := bufio.NewWriter(os.Stdout)
	label := func(texts []task.Example) error {
		if len(texts) == 0 {
			return nil
		}
		enc, err := task.Encode(tok, texts, m.Config.Vocab, min(p.maxLength, m.MaxLength()), nil)
		if err != nil {
			return err
		}
		logits, err := eval.Logits(a.ctx, m, enc, nil)
		if err != nil {
			return err
		}
		n := len(m.Config.Labels)
		for i, ex := range texts {
			if err := a.printPrediction(out, m.Config, ex, logits[i*n:(i+1)*n], probabilities); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	if p.data == "" {
		return a.predictLines(label)
	}
	texts, err := task.LoadTexts(p.data, p.columns)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(texts, together) {
		if err := label(some); err != nil {
			return err
		}
	}
	return nil
}

const together = 256 // texts labelled at once

// predictLines labels the lines of standard input. Who types them waits for the
// answer, so what has come is labelled when no more is there.
func (a *app) predictLines(label func([]task.Example) error) error {
	in := scanLines(a.ctx, os.Stdin)
	var lines []task.Example
	flush := func() error {
		err := label(lines)
		lines = lines[:0]
		return err
	}
	number, empty, first := 0, 0, 0
	for line := range in.lines {
		number++
		text, pair, has := strings.Cut(strings.TrimSuffix(line, "\r"), "\t")
		switch {
		case strings.TrimSpace(text) == "" && strings.TrimSpace(pair) == "":
			if empty++; empty == 1 {
				first = number
			}
		default:
			lines = append(lines, task.Example{Text: tokenize.Valid(text), Pair: tokenize.Valid(pair), HasPair: has, Place: fmt.Sprintf("standard input: line %d", number)})
		}
		if len(lines) == together || len(in.lines) == 0 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if in.err != nil {
		return fmt.Errorf("standard input: %w", in.err)
	}
	if err := flush(); err != nil {
		return err
	}
	switch {
	case empty == 1:
		a.ui.say("standard input: line %d is empty and was left out", first)
	case empty > 1:
		a.ui.say("standard input: %d lines are empty and were left out, the first of them line %d", empty, first)
	}
	return nil
}

func (a *app) printPrediction(out *bufio.Writer, cfg *model.Config, ex task.Example, logits []float32, probabilities func([]float32) []float64) error {
	p := prediction{Text: ex.Text, Pair: ex.Pair, Score: float64(logits[0])}
	if cfg.Head == model.Classification {
		best := 0
		for i, v := range probabilities(logits) {
			p.Scores = append(p.Scores, labelScore{cfg.Labels[i], v})
			if v > p.Scores[best].score {
				best = i
			}
		}
		p.Label, p.Score = cfg.Labels[best], p.Scores[best].score
	}
	if a.ui.json {
		return json.NewEncoder(out).Encode(p)
	}
	text := ex.Text
	if ex.HasPair {
		text += "\t" + ex.Pair
	}
	_, err := fmt.Fprintf(out, "%s\t%.4f\t%s\n", p.Label, p.Score, oneLine(text))
	return err
}

// sigmoids are the probabilities of labels that do not exclude each other.
func sigmoids(x []float32) []float64 {
	p := make([]float64, len(x))
	for i, v := range x {
		p[i] = 1 / (1 + math.Exp(-float64(v)))
	}
	return p
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
