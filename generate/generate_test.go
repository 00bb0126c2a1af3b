package generate_test

import (
	"context"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/generate"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
)

func newGenerator(t testing.TB, name string, workers int) *generate.Generator {
	t.Helper()
	dir, err := checkpoint.OpenDir(filepath.Join("..", "model", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(workers)
	t.Cleanup(pool.Close)
	g, err := generate.New(pool, m, kernel.FP32)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func run(t testing.TB, g *generate.Generator, prompts [][]int32, opt generate.Options) []generate.Result {
	t.Helper()
	results, err := g.Run(context.Background(), prompts, opt, generate.Watch{})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// goldenCase is what transformers wrote; see scripts/goldens/generate.py.
type goldenCase struct {
	Model        string
	Prompt       []int32
	Stop, Tokens []int32 `json:",omitempty"`
	Stopped      bool
	Score        float64 `json:",omitempty"` // of a beam search
	Options      struct {
		Beams         int     `json:"num_beams,omitempty"`
		LengthPenalty float64 `json:"length_penalty,omitempty"`
		NoRepeat      int     `json:"no_repeat_ngram_size,omitempty"`
		EarlyStopping any     `json:"early_stopping,omitempty"`
		Penalty       float64 `json:"repetition_penalty,omitempty"`
		MinNewTokens  int     `json:"min_new_tokens,omitempty"`
	}
}

func (c *goldenCase) options() generate.Options {
	o := generate.Options{MaxNewTokens: 12, Stop: c.Stop, Beams: c.Options.Beams, LengthPenalty: c.Options.LengthPenalty, NoRepeatNGram: c.Options.NoRepeat, RepetitionPenalty: c.Options.Penalty, MinNewTokens: c.Options.MinNewTokens}
	switch c.Options.EarlyStopping {
	case true:
		o.EarlyStopping = generate.StopFull
	case "never":
		o.EarlyStopping = generate.StopNever
	}
	return o
}

// TestGoldens: the tokens of transformers' generate, and of a beam search its
// score.
func TestGoldens(t *testing.T) {
	var cases []goldenCase
	golden.JSON(t, "testdata/golden.json", &cases)
	generators := map[string]*generate.Generator{}
	stopped := 0
	for _, c := range cases {
		g := generators[c.Model]
		if g == nil {
			g = newGenerator(t, c.Model, 2)
			generators[c.Model] = g
		}
		r := run(t, g, [][]int32{c.Prompt}, c.options())[0]
		if !slices.Equal(r.Tokens, c.Tokens) || r.Stopped != c.Stopped {
			t.Errorf("%s, prompt %v, stop %v, %+v: found %v (stopped: %v), transformers %v (%v)", c.Model, c.Prompt, c.Stop, c.Options, r.Tokens, r.Stopped, c.Tokens, c.Stopped)
		}
		if !(math.Abs(r.Score-c.Score) <= 1e-4*max(1, math.Abs(c.Score))) {
			t.Errorf("%s, %+v: found the score %v, transformers' %v", c.Model, c.Options, r.Score, c.Score)
		}
		if c.Stopped {
			stopped++
		}
	}
	if stopped < len(cases)/4 || stopped > len(cases)*3/4 {
		t.Errorf("%d of %d texts ended by a stop token; the goldens are to have both kinds", stopped, len(cases))
	}
}

var prompts = [][]int32{{5}, {7, 8, 9, 10, 11, 12, 13}, {20, 21}, {90, 3, 40, 41}, {6, 6, 6, 6, 6, 6, 6, 6, 6}, {33, 34, 35}}

// TestBatches: neither the batch nor the number of threads counts, in any way of
// choosing.
func TestBatches(t *testing.T) {
	for _, opt := range []generate.Options{
		{MaxNewTokens: 20, Stop: []int32{41, 60}},
		{MaxNewTokens: 20, Stop: []int32{41, 60}, Beams: 3, LengthPenalty: 1, NoRepeatNGram: 2},
		{MaxNewTokens: 20, Stop: []int32{41, 60}, Sample: true, Temperature: 1.5, TopK: 30, TopP: 0.9, Seed: 3},
	} {
		for _, name := range []string{"gpt2", "t5", "llama"} {
			var first []generate.Result
			for _, workers := range []int{1, 3} {
				g := newGenerator(t, name, workers)
				for _, batch := range []int{1, 4, 0} {
					opt.Batch = batch
					r := run(t, g, prompts, opt)
					if first == nil {
						first = r
					} else if !reflect.DeepEqual(r, first) {
						t.Errorf("%s, %+v, %d workers: found %v, want %v", name, opt, workers, r, first)
					}
				}
			}
		}
	}
}

// TestWatch: the tokens are told as they come and the results as they end.
func TestWatch(t *testing.T) {
	g := newGenerator(t, "gpt2", 1)
	tokens, done := map[int][]int32{}, map[int]generate.Result{}
	results, err := g.Run(context.Background(), prompts, generate.Options{MaxNewTokens: 10, Stop: []int32{41}, Batch: 2}, generate.Watch{
		Token: func(p int, id int32) { tokens[p] = append(tokens[p], id) },
		Done:  func(p int, r generate.Result) { done[p] = r },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if !slices.Equal(tokens[i], r.Tokens) || !reflect.DeepEqual(done[i], r) {
			t.Errorf("prompt %d: told %v and %v, found %v", i, tokens[i], done[i], r)
		}
	}
}

// TestPositions: a text ends where the model's positions do.
func TestPositions(t *testing.T) {
	g := newGenerator(t, "gpt2", 1) // of 32 positions
	long := make([]int32, 30)
	if r := run(t, g, [][]int32{long}, generate.Options{MaxNewTokens: 10})[0]; len(r.Tokens) != 2 || r.Stopped {
		t.Errorf("found %+v", r)
	}
	for n, want := range map[int]string{
		32: "prompt 2: expected fewer tokens than the model's 32 positions, found 32",
		33: "prompt 2: expected 1 to 32 tokens, found 33",
		0:  "prompt 2: expected 1 to 32 tokens, found 0",
	} {
		_, err := g.Run(context.Background(), [][]int32{{1}, make([]int32, n)}, generate.Options{MaxNewTokens: 1}, generate.Watch{})
		if err == nil || err.Error() != want {
			t.Errorf("%d tokens: found error %v", n, err)
		}
	}
}

func TestErrors(t *testing.T) {
	g := newGenerator(t, "gpt2", 1)
	for want, opt := range map[string]generate.Options{
		"max-new-tokens: expected at least 1, found 0":                            {},
		"beam: expected at least 1, found -1":                                     {MaxNewTokens: 1, Beams: -1},
		"no-repeat-ngram: expected at least 0, found -2":                          {MaxNewTokens: 1, NoRepeatNGram: -2},
		"batch: expected at least 0, found -1":                                    {MaxNewTokens: 1, Batch: -1},
		"expected beam search or sampling, found both":                            {MaxNewTokens: 1, Beams: 2, Sample: true},
		"temperature: expected more than 0, found NaN":                            {MaxNewTokens: 1, Sample: true, Temperature: math.NaN()},
		"top-k: expected at least 0, found -1":                                    {MaxNewTokens: 1, Sample: true, TopK: -1},
		"top-p: expected between 0 and 1, found 1.5":                              {MaxNewTokens: 1, Sample: true, TopP: 1.5},
		"temperature, top-k and top-p: expected only when sampling":               {MaxNewTokens: 1, TopK: 5},
		"length-penalty: expected a number, found NaN":                            {MaxNewTokens: 1, LengthPenalty: math.NaN()},
		"stop token: expected an id below the vocabulary's 96, found 96":          {MaxNewTokens: 1, Stop: []int32{96}},
		"prompt 1: token 0: expected an id below the vocabulary's 96, found 1000": {MaxNewTokens: 2},
	} {
		p := [][]int32{{1}}
		if opt.MaxNewTokens == 2 {
			p[0][0] = 1000
		}
		if _, err := g.Run(context.Background(), p, opt, generate.Watch{}); err == nil || err.Error() != want {
			t.Errorf("%+v: found error %v, want %s", opt, err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.Run(ctx, prompts, generate.Options{MaxNewTokens: 5}, generate.Watch{}); err != context.Canceled {
		t.Errorf("cancelled: found error %v", err)
	}
}
