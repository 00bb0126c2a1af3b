package main

import (
	"context"
	"fmt"
	"strings"

	"mlpfusion/generate"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// sampleTokens is the most that a text written while training may have.
const sampleTokens = 200

// samples returns what writes a text to each line of a file with a model in training,
// the most probable token each time: an answer where conversations are learnt.
func (a *app) samples(path string, dir string, set *task.Dataset, data *train.Data, m *model.Model) (func(context.Context, *model.Model) ([]train.Sample, error), error) {
	if !set.Spec.LanguageModel() {
		return nil, usageError{fmt.Errorf("sample-prompts: expected a task for language models, found %s", set.Spec.Name)}
	}
	prompts, err := a.readLines(path)
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer(dir, m.Config)
	if err != nil {
		return nil, err
	}
	g := &writer{tok: tok, config: m.Config, longest: m.MaxLength()}
	opt := generate.Options{MaxNewTokens: sampleTokens}
	for _, id := range m.Config.EndIDs {
		if id >= 0 && id < m.Config.Vocab {
			opt.Stop = append(opt.Stop, int32(id))
		}
	}
	if g.template = data.Train.Template; g.template != nil {
		if err := g.stopAtEnd(&opt); err != nil {
			return nil, err
		}
	}
	ids := make([][]int32, len(prompts))
	for i, p := range prompts {
		if ids[i], err = g.ids(p, set.Spec.Generation, sampleTokens); err == nil && len(ids[i]) >= m.MaxLength() {
			err = fmt.Errorf("expected a prompt of fewer tokens than the model's %d positions, found %d", m.MaxLength(), len(ids[i]))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return func(ctx context.Context, m *model.Model) ([]train.Sample, error) {
		g, err := generate.New(a.pool, m, kernel.FP32)
		if err != nil {
			return nil, err
		}
		defer m.Unpack() // the weights will change
		results, err := g.Run(ctx, ids, opt, generate.Watch{})
		if err != nil {
			return nil, err
		}
		samples := make([]train.Sample, len(prompts))
		for i, r := range results {
			samples[i] = train.Sample{Prompt: prompts[i], Text: strings.TrimSpace(tok.Decode(r.Tokens))}
		}
		return samples, nil
	}, nil
}

// sampleText is a sample as a line of a log.
func sampleText(s train.Sample) string {
	const most = 200
	text := []rune(oneLine(s.Text))
	if len(text) > most {
		text = append(text[:most], '…')
	}
	return fmt.Sprintf("  %s → %s", s.Prompt, string(text))
}
