package generate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// Result is the text written for one prompt.
type Result struct {
	Tokens  []int32 // without the prompt and the stop token
	Stopped bool    // a stop token came; otherwise the length ran out
	Score   float64 // of a beam search: the log-probability over length^LengthPenalty
}

// Watch is told what is written, while Run goes on; its calls do not overlap.
type Watch struct {
	Token func(prompt int, id int32) // each token of a text, but a stop token; not in beam search
	Done  func(prompt int, r Result)
}

// Generator writes texts with one model.
type Generator struct {
	model *model.Model
	tape  *nn.Tape
	cache *model.Cache
	pick  picker

	sequences, ids, offsets []int32 // of a step
}

// New prepares a model for writing, at a precision. It lays the matrices out
// anew (see model.Model.Pack), so the weights must not change afterwards.
func New(pool *kernel.Pool, m *model.Model, prec kernel.Precision) (*Generator, error) {
	cache, err := m.NewCache()
	if err != nil {
		return nil, err
	}
	m.Pack(pool, prec, true)
	tape := nn.NewTape(pool)
	tape.Prec = prec
	return &Generator{model: m, tape: tape, cache: cache}, nil
}

// text is what is being written for a prompt.
type text struct {
	number  int // of the prompt
	prompt  int // tokens of ids that are the prompt
	longest int // of ids
	beams   []beam
	search  *search // nil without beam search
	random  *rand.Rand
}

// beam is one beginning of a text.
type beam struct {
	sequence int32   // in the cache, which has read all of ids but the last, or at first none
	ids      []int32 // with the prompt, or in an encoder–decoder the decoder's first token
	score    float32 // log-probability
}

// Run writes a text for each prompt, of at least one token. With Sample the
// prompts' numbers select what is drawn.
func (g *Generator) Run(ctx context.Context, prompts [][]int32, opt Options, watch Watch) ([]Result, error) {
	if err := g.check(prompts, &opt); err != nil {
		return nil, err
	}
	if opt.Batch == 0 {
		opt.Batch = 32
	}
	together := max(1, opt.Batch/max(1, opt.Beams)) // prompts
	results := make([]Result, len(prompts))
	var texts []*text
	defer func() {
		for _, t := range texts {
			g.end(t)
		}
	}()
	for next := 0; next < len(prompts) || len(texts) > 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for ; next < len(prompts) && len(texts) < together; next++ {
			t := g.begin(next, prompts[next], &opt)
			if t.prompt >= t.longest {
				g.end(t)
				return nil, fmt.Errorf("prompt %d: expected fewer tokens than the model's %d positions, found %d", next+1, g.model.MaxLength(), t.prompt)
			}
			texts = append(texts, t)
		}
		g.step(texts, &opt)
		row := 0
		texts = slices.DeleteFunc(texts, func(t *text) bool {
			picked := g.pick.picked[row : row+len(t.beams)]
			row += len(t.beams)
			var r Result
			var done bool
			if t.search != nil {
				r, done = g.branch(t, picked, &opt)
			} else {
				r, done = t.write(picked[0][0], &opt, watch)
			}
			if done {
				results[t.number] = r
				if watch.Done != nil {
					watch.Done(t.number, r)
				}
				g.end(t)
			}
			return done
		})
	}
	return results, nil
}

// check reports options and prompts that the model cannot follow.
func (g *Generator) check(prompts [][]int32, opt *Options) error {
	if err := opt.Check(); err != nil {
		return err
	}
	for i, p := range prompts {
		if len(p) == 0 || len(p) > g.model.MaxLength() {
			return fmt.Errorf("prompt %d: expected 1 to %d tokens, found %d", i+1, g.model.MaxLength(), len(p))
		}
		if err := g.model.Check(&model.Input{IDs: p, Offsets: []int32{0, int32(len(p))}}); err != nil {
			return fmt.Errorf("prompt %d: %w", i+1, err)
		}
	}
	for _, id := range opt.Stop {
		if id < 0 || int(id) >= g.model.Config.Vocab {
			return fmt.Errorf("stop token: expected an id below the vocabulary's %d, found %d", g.model.Config.Vocab, id)
		}
	}
	return nil
}

func (g *Generator) begin(number int, prompt []int32, opt *Options) *text {
	g.tape.Reset(0)
	s, first := g.model.Begin(g.tape, g.cache, prompt)
	t := &text{number: number, prompt: len(first), beams: []beam{{sequence: s, ids: slices.Clone(first)}}}
	t.longest = min(len(first)+opt.MaxNewTokens, g.model.MaxLength())
	if opt.Beams > 1 {
		t.search = &search{}
	}
	if opt.Sample {
		t.random = rand.New(rand.NewPCG(opt.Seed, uint64(number)))
	}
	return t
}

func (g *Generator) end(t *text) {
	for _, b := range t.beams {
		g.cache.Free(b.sequence)
	}
	t.beams = nil
}

// step runs the model on the tokens it has not read yet of all beams, and picks
// what may follow each.
func (g *Generator) step(texts []*text, opt *Options) {
	g.sequences, g.ids, g.offsets = g.sequences[:0], g.ids[:0], append(g.offsets[:0], 0)
	for _, t := range texts {
		for _, b := range t.beams {
			g.sequences = append(g.sequences, b.sequence)
			g.ids = append(g.ids, b.ids[g.cache.Len(b.sequence):]...)
			g.offsets = append(g.offsets, int32(len(g.ids)))
		}
	}
	g.tape.Reset(0)
	logits := g.model.Next(g.tape, g.cache, g.sequences, g.ids, g.offsets)
	g.pick.run(g.tape.Pool, logits, texts, opt)
}

// write adds the picked token to a text that is not searched for.
func (t *text) write(c candidate, opt *Options, watch Watch) (Result, bool) {
	b := &t.beams[0]
	stop := slices.Contains(opt.Stop, c.id)
	if !stop {
		b.ids = append(b.ids, c.id)
		if watch.Token != nil {
			watch.Token(t.number, c.id)
		}
	}
	if !stop && len(b.ids) < t.longest {
		return Result{}, false
	}
	return Result{Tokens: b.ids[t.prompt:], Stopped: stop}, true
}
