package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"mlpfusion/internal/disk"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// perplexity is a language model's on one text.
type perplexity struct {
	Perplexity float64 `json:"perplexity"`
	Loss       float64 `json:"loss"`
	Predicted  int     `json:"predicted_tokens"`
	Windows    int     `json:"windows"`
	Length     int     `json:"window_tokens"`
	Stride     int     `json:"stride"`
	Rate       float64 `json:"tokens_per_second"`
}

// checkPerplexity refuses flags that would change nothing with --perplexity, or
// without it.
func checkPerplexity(f *pflag.FlagSet, measure bool) error {
	if !measure {
		return onlyWith(f, []condition{{"stride", false, "--perplexity"}})
	}
	for _, name := range append([]string{"task", "split", "text", "text-pair", "label", "regression", "text-to-text", "generate"}, writingFlags...) {
		if f.Changed(name) {
			return usageError{fmt.Errorf("%s: expected without --perplexity", name)}
		}
	}
	return cmp.Or(atLeast(f, 2, "max-length"), atLeast(f, 1, "stride"), atLeast(f, 0, "dev-rows"))
}

// evaluatePerplexity measures how well a language model predicts a file, by the
// protocol of the published tables of WikiText-2: the whole file is one string, with
// the model's own special tokens around it once, cut into windows that the model reads
// by themselves (task.Windows). length 0 is 2,048 tokens or the most that the model
// reads, stride 0 is length, windows 0 is all of them.
func (a *app) evaluatePerplexity(name, file string, length, stride, windows int) error {
	dir, err := a.open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	m, err := a.loadAdapted(dir, model.LoadOptions{Head: model.LanguageModel})
	if err != nil {
		return err
	}
	if m.Config.TwoStacks() {
		return fmt.Errorf("%s: expected a model without an encoder, such as gpt2, found %s", name, m.Config.Type)
	}
	switch most := m.Config.MaxLength(); {
	case length == 0:
		length = min(2048, most)
	case length > most:
		return usageError{fmt.Errorf("max-length: expected at most the %d tokens that the model reads, found %d", most, length)}
	}
	if stride == 0 {
		stride = length
	}
	if stride > length {
		return usageError{fmt.Errorf("stride: expected at most the window's %d tokens, found %d", length, stride)}
	}
	data, err := a.windows(file, dir.Path, m.Config, length, stride, windows)
	if err != nil {
		return err
	}
	bar := a.ui.progress("perplexity", "window", data.Len())
	start := time.Now()
	rate := func(windows int) float64 {
		return float64(data.Tokens()) * float64(windows) / float64(data.Len()) / time.Since(start).Seconds()
	}
	sum, predicted, err := train.NewEvaluator(a.pool, kernel.FP32).Likelihood(a.ctx, m, data, func(done, total int) {
		bar.set(done, total, significant(rate(done))+" tokens/s")
	})
	if err != nil {
		bar.stop()
		return err
	}
	spent := rate(data.Len())
	bar.end()
	scores, err := task.ScoreText(task.Spec{Name: file}, sum, predicted)
	if err != nil {
		return err
	}
	r := perplexity{scores[0].Value, scores[1].Value, predicted, data.Len(), length, stride, spent}
	return a.ui.result(r, func(w io.Writer) {
		fmt.Fprintf(w, "  perplexity %.4f, loss %.5f: %d tokens predicted in %s of %d tokens, %s tokens/s\n",
			r.Perplexity, r.Loss, r.Predicted, count(r.Windows, "window"), length, significant(r.Rate))
	})
}

// windows are those of a text file, the first few of them if asked for.
func (a *app) windows(file, dir string, m *model.Config, length, stride, few int) (*task.Encoded, error) {
	if file == "" {
		return nil, usageError{errors.New("expected --data, a text file, found none")}
	}
	text, err := disk.ReadFile(file)
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer(dir, m)
	if err != nil {
		return nil, err
	}
	data := task.Windows(tok.Encode(string(text), nil, 0).IDs, length, stride)
	if data.Len() == 0 {
		return nil, fmt.Errorf("%s: expected a text of at least two tokens, found less", file)
	}
	if few > 0 && few < data.Len() {
		rows := make([]int32, few)
		for i := range rows {
			rows[i] = int32(i)
		}
		data = data.Subset(rows)
	}
	return data, nil
}
