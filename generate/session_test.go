package generate_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"mlpfusion/generate"
)

// TestSession: each reply is what Run writes to the whole text, however much of it was
// read before, also after a reply that was broken off and a text that changed.
func TestSession(t *testing.T) {
	for _, name := range []string{"gpt2", "llama", "gemma3", "mixtral"} {
		g, whole := newGenerator(t, name, 2), newGenerator(t, name, 1)
		s, err := g.Session()
		if err != nil {
			t.Fatal(err)
		}
		greedy := generate.Options{MaxNewTokens: 5}
		ids := []int32{7, 3, 9}
		compare := func(what string, opt generate.Options) {
			t.Helper()
			want := run(t, whole, [][]int32{ids}, opt)[0]
			var told []int32
			found, err := s.Reply(context.Background(), ids, opt, func(id int32) { told = append(told, id) })
			if err != nil || len(found.Tokens) == 0 && opt.Stop == nil || !slices.Equal(found.Tokens, want.Tokens) || !slices.Equal(found.Tokens, told) || found.Stopped != want.Stopped {
				t.Errorf("%s, %s: %v\nfound %v, told %v\nwant  %v", name, what, err, found, told, want)
			}
			ids = append(ids, found.Tokens...)
		}
		drawn := greedy
		drawn.Sample, drawn.Seed = true, 4
		compare("first, drawn", drawn)
		ids = append(ids, 5, 4)
		compare("second", greedy)
		compare("the same text, gone on with", greedy)

		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		found, err := s.Reply(ctx, append(ids, 8), greedy, func(int32) {
			if n++; n == 2 {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) || len(found.Tokens) != 2 {
			t.Errorf("%s: broken off: found %v, %v", name, found, err)
		}
		ids = append(ids, 8, found.Tokens[0], 6)
		compare("after one that was broken off", greedy)
		ids = ids[:4]
		compare("a shorter text", greedy)
		stopping := greedy
		stopping.Stop = []int32{run(t, whole, [][]int32{ids}, greedy)[0].Tokens[2]}
		compare("with a stop token", stopping)
		ids = []int32{2, 2}
		compare("another text", greedy)
	}
	seq2seq := newGenerator(t, "t5", 1)
	if _, err := seq2seq.Session(); err == nil {
		t.Error("expected a refusal of a model with an encoder")
	}
	s, err := newGenerator(t, "gpt2", 1).Session()
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		ids []int32
		opt generate.Options
	}{
		"beams":     {[]int32{1}, generate.Options{MaxNewTokens: 1, Beams: 2}},
		"no tokens": {nil, generate.Options{MaxNewTokens: 1}},
		"too long":  {make([]int32, 32), generate.Options{MaxNewTokens: 1}},
	} {
		if _, err := s.Reply(context.Background(), c.ids, c.opt, nil); err == nil {
			t.Errorf("%s: expected an error", what)
		}
	}
}
