package generate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
)

// Session is a text that the model goes on with again and again, as the answers of a
// conversation are. What the model has read of it stays in the cache, so that an answer
// costs what is new before it.
type Session struct {
	g        *Generator
	sequence int32
	read     []int32 // tokens that the cache holds
	replies  int
}

// Session begins one. The model must be without an encoder.
func (g *Generator) Session() (*Session, error) {
	if g.model.Config.TwoStacks() {
		return nil, fmt.Errorf("expected a model without an encoder, such as llama, found %s", g.model.Config.Type)
	}
	s, _ := g.model.Begin(g.tape, g.cache, nil)
	return &Session{g: g, sequence: s}, nil
}

// Reply writes on behind ids, which are all of the text so far; of these the beginning
// that the session has read already is not read again. token, unless nil, is called with
// each token as it is chosen. When ctx ends, the result is what was written, and the
// error ctx's.
//
// The reply is that of Run to the same prompt; with Sample the number of replies before
// counts as the prompt's number.
func (s *Session) Reply(ctx context.Context, ids []int32, opt Options, token func(id int32)) (Result, error) {
	g := s.g
	if opt.Beams > 1 {
		return Result{}, errors.New("expected an answer without beam search, found it asked for")
	}
	if len(ids) >= g.model.MaxLength() {
		return Result{}, fmt.Errorf("expected a conversation of fewer tokens than the model's %d positions, found %d", g.model.MaxLength(), len(ids))
	}
	if err := g.check([][]int32{ids}, &opt); err != nil {
		return Result{}, err
	}
	same := 0
	for same < min(len(s.read), len(ids)-1) && s.read[same] == ids[same] {
		same++
	}
	g.cache.Truncate(s.sequence, same)
	t := &text{prompt: len(ids), longest: min(len(ids)+opt.MaxNewTokens, g.model.MaxLength()), beams: []beam{{sequence: s.sequence, ids: append([]int32(nil), ids...)}}}
	if opt.Sample {
		t.random = rand.New(rand.NewPCG(opt.Seed, uint64(s.replies)))
	}
	s.replies++
	watch := Watch{Token: func(_ int, id int32) {
		if token != nil {
			token(id)
		}
	}}
	b := &t.beams[0]
	for {
		if err := ctx.Err(); err != nil {
			s.read = b.ids[:g.cache.Len(s.sequence)]
			return Result{Tokens: b.ids[t.prompt:]}, err
		}
		g.step([]*text{t}, &opt)
		if r, done := t.write(g.pick.picked[0][0], &opt, watch); done {
			s.read = b.ids[:g.cache.Len(s.sequence)]
			return r, nil
		}
	}
}
