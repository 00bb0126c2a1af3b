package chat

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"
)

// Template is a model's way of writing a conversation.
type Template struct {
	Source string // in Jinja
	// Origin says where the template comes from, in words.
	Origin string
	// Own tells that it is what the model's files say when they are not asked for a
	// template by name.
	Own bool

	// Now is the time that the template is told; zero: that of the clock. Dated tells that
	// it asks.
	Now   time.Time
	Dated bool

	program *jinja.Template
	words   map[string]string // bos_token and the like
	marked  bool              // it marks the assistant's words itself
}

// New compiles a template. words are the special tokens by their roles, such as
// bos_token.
func New(source, origin string, words map[string]string) (*Template, error) {
	fail := func(err error) (*Template, error) { return nil, fmt.Errorf("%s: chat template: %w", origin, err) }
	text, err := plain(source)
	if err != nil {
		return fail(err)
	}
	t := &Template{Source: source, Origin: origin, words: words, marked: strings.Contains(text, spanBegin), Dated: strings.Contains(text, "strftime_now")}
	if err := guarded(func() (err error) { t.program, err = jinja.Compile(text); return err }); err != nil {
		return fail(err)
	}
	return t, nil
}

// guarded makes a panic of the library, which reads programs of others, an error.
func guarded(f func() error) (err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("expected a template, found a broken one (%v)", e)
		}
	}()
	return f()
}

// Render writes a conversation. With reply the text ends where the assistant is to go on.
func (t *Template) Render(messages []Message, reply bool) (string, error) {
	text, _, err := t.render(messages, reply)
	return text, err
}

// render also returns where the template marks the assistant's words.
func (t *Template) render(messages []Message, reply bool) (string, []span, error) {
	list := make([]any, len(messages))
	for i, m := range messages {
		if strings.Contains(m.Content, spanBegin) || strings.Contains(m.Content, spanEnd) {
			return "", nil, errors.New("expected text, found one of the noncharacters U+FDD0 and U+FDD1")
		}
		list[i] = map[string]any{"role": m.Role, "content": m.Content}
	}
	data := t.functions()
	for name, value := range map[string]any{"messages": list, "add_generation_prompt": reply, "tools": nil, "documents": nil} {
		data[name] = jinja.FromGoValue(value)
	}
	for role, word := range t.words {
		data[role] = jinja.NewString(word)
	}
	var text string
	if err := guarded(func() (err error) { text, err = t.program.RenderValues(data); return err }); err != nil {
		return "", nil, fmt.Errorf("%s: chat template: %w", t.Origin, err)
	}
	text, spans, err := unmark(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", t.Origin, err)
	}
	return text, spans, err
}

// span is a stretch of a text: its bytes [from, to).
type span struct{ from, to int }

// unmark takes the marks out of a text.
func unmark(text string) (string, []span, error) {
	if !strings.Contains(text, spanBegin) && !strings.Contains(text, spanEnd) {
		return text, nil, nil
	}
	var out strings.Builder
	var spans []span
	open := -1
	for {
		i := strings.IndexAny(text, spanBegin+spanEnd)
		if i < 0 {
			break
		}
		out.WriteString(text[:i])
		switch mark := text[i : i+len(spanBegin)]; {
		case mark == spanBegin && open < 0:
			open = out.Len()
		case mark == spanEnd && open >= 0:
			spans = append(spans, span{open, out.Len()})
			open = -1
		default:
			return "", nil, errors.New("chat template: expected generation blocks one after another, found one within another")
		}
		text = text[i+len(spanBegin):]
	}
	out.WriteString(text)
	return out.String(), spans, nil
}
