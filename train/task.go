package train

import (
	"context"
	"errors"
	"fmt"

	"mlpfusion/chat"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
	"mlpfusion/tokenize"
)

// HeadFor is the head that a task asks of a model.
func HeadFor(spec task.Spec) model.LoadOptions {
	switch {
	case spec.LanguageModel() || spec.Written:
		return model.LoadOptions{Head: model.LanguageModel}
	case spec.Regression:
		return model.LoadOptions{Head: model.Regression, Labels: []string{"LABEL_0"}}
	}
	return model.LoadOptions{Head: model.Classification, Labels: spec.Labels}
}

// FitHead is the head that a task asks of a checkpoint, made anew where it has none
// that fits. Classes that the checkpoint has in another order the data set takes
// over in that order; what other classes have learnt is not used.
func FitHead(set *task.Dataset, saved *model.Config) model.LoadOptions {
	head := HeadFor(set.Spec)
	if head.Head == model.Classification && saved.Head == model.Classification {
		places, known := set.Spec.ClassOrder(saved.Labels)
		set.Reorder(places)
		head = HeadFor(set.Spec)
		head.OtherClasses = !known
	}
	head.NewHead = true
	return head
}

// LossOf is the loss that fits a model's head.
func LossOf(m *model.Model) nn.Loss {
	if m.Config.Head == model.Regression {
		return nn.SquaredError
	}
	return nn.CrossEntropy
}

// EncodeOptions are the choices of Encode.
type EncodeOptions struct {
	Length   int            // largest number of tokens of a sequence
	Rows     int            // this many of the rows, the first of an order; 0: all
	Seed     uint64         // of that order
	Template *chat.Template // of conversations
	Progress func(done, total int)
}

// Encode tokenizes a task's examples for a model.
func Encode(tok tokenize.Tokenizer, spec task.Spec, m *model.Config, examples []task.Example, opt EncodeOptions) (*task.Encoded, error) {
	examples = task.Few(examples, opt.Rows, opt.Seed)
	e, err := encode(tok, spec, m, examples, opt)
	if err == nil {
		e.Digests = task.DigestsOf(examples)
	}
	return e, err
}

func encode(tok tokenize.Tokenizer, spec task.Spec, m *model.Config, examples []task.Example, opt EncodeOptions) (*task.Encoded, error) {
	if spec.Chat {
		if m.TwoStacks() {
			return nil, fmt.Errorf("task %s: expected a model without an encoder, such as llama, found %s", spec.Name, m.Type)
		}
		return task.EncodeChat(tok, examples, opt.Template, spec.Loss, m.Vocab, opt.Length, opt.Progress)
	}
	if !spec.LanguageModel() && !spec.Written {
		return task.Encode(tok, examples, m.Vocab, opt.Length, opt.Progress)
	}
	f, err := TextFormat(m, opt.Length)
	if err != nil {
		return nil, err
	}
	if f.Encoder && spec.Documents {
		return nil, fmt.Errorf("task %s: expected a model without an encoder, such as gpt2, found %s", spec.Name, m.Type)
	}
	if spec.Written {
		if !f.Encoder {
			return nil, fmt.Errorf("text-to-text: expected a model with an encoder and a decoder, such as t5, found %s", m.Type)
		}
		return task.EncodeWritten(tok, spec, examples, f, opt.Progress)
	}
	e, err := task.EncodeText(tok, examples, f, opt.Progress)
	if err != nil {
		return nil, err
	}
	if opt.Rows > 0 && opt.Rows < e.Len() { // a document makes many rows
		e = e.Subset(task.Shuffle(opt.Seed, 0, e.Len())[:opt.Rows])
	}
	return e, nil
}

// TextFormat says how a language model reads prompts and texts of at most length
// tokens.
func TextFormat(m *model.Config, length int) (task.TextFormat, error) {
	const least = 4
	if length < least {
		return task.TextFormat{}, fmt.Errorf("expected sequences of at least %d tokens, found %d", least, length)
	}
	end := m.EndID()
	if end < 0 {
		return task.TextFormat{}, errors.New("config.json: eos_token_id: expected the id of the token that ends a text, found none")
	}
	if end >= m.Vocab {
		return task.TextFormat{}, fmt.Errorf("config.json: eos_token_id: expected an id below the vocabulary's %d, found %d", m.Vocab, end)
	}
	return task.TextFormat{End: int32(end), Length: length, Vocab: m.Vocab, Encoder: m.TwoStacks(), Start: int32(m.StartID)}, nil
}

// InputOf is a batch as a model takes it; it shares the batch's memory.
func InputOf(b *task.Batch) model.Input {
	return model.Input{IDs: b.IDs, Types: b.Types, Offsets: b.Offsets, Targets: b.Targets, DecoderIDs: b.DecoderIDs, DecoderOffsets: b.DecoderOffsets}
}

// Batches lays all rows out in batches of a size that evaluation likes, for what
// looks at texts more than once. Longer rows come first.
func Batches(data *task.Encoded) []model.Input {
	var batches []model.Input
	for _, rows := range task.LengthSorted(data, evalTokens) {
		var b task.Batch
		data.Fill(&b, rows)
		batches = append(batches, InputOf(&b))
	}
	return batches
}

// Score evaluates a model on a task's data.
func (e *Evaluator) Score(ctx context.Context, m *model.Model, spec task.Spec, data *task.Encoded, progress func(done, total int)) ([]task.Metric, error) {
	if spec.LanguageModel() {
		sum, targets, err := e.Likelihood(ctx, m, data, progress)
		if err != nil {
			return nil, err
		}
		return task.ScoreText(spec, sum, targets)
	}
	logits, err := e.Logits(ctx, m, data, progress)
	if err != nil {
		return nil, err
	}
	return task.Score(spec, logits, data.Labels)
}

// Rows are what a model says of each row of a task's data; of a language model's, of
// each batch.
func (e *Evaluator) Rows(ctx context.Context, m *model.Model, spec task.Spec, data *task.Encoded, progress func(done, total int)) (task.Rows, error) {
	if !spec.LanguageModel() {
		logits, err := e.Logits(ctx, m, data, progress)
		if err != nil {
			return task.Rows{}, err
		}
		if _, err := task.Score(spec, logits, data.Labels); err != nil {
			return task.Rows{}, err
		}
		return task.RowsOf(spec, logits, data.Labels), nil
	}
	const least = 32 // batches, or as many as there are rows
	r := task.Rows{Metric: task.Perplexity}
	err := e.likelihoods(ctx, m, data, max(1, min(evalTokens, data.Tokens()/least)), progress, func(sum float64, targets int) {
		r.Said, r.Right = append(r.Said, float32(-sum)), append(r.Right, float32(targets))
	})
	return r, err
}
