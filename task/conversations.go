package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mlpfusion/chat"
	"mlpfusion/tokenize"
)

// form is one of the ways in which files write a conversation.
type form struct {
	about string
	// needs are the keys that tell it, and more those that it may have besides.
	needs, more []string
	// turns makes the messages of a row, of the values of needs and of more. Values that
	// the row lacks are nil.
	turns func(r *turnReader, values []json.RawMessage) ([]chat.Message, error)
}

// forms are those found in the wild; the first whose keys a file's first row has is the
// file's.
func forms(spec Spec) []form {
	return []form{
		{"messages", []string{"messages"}, nil, (*turnReader).list},
		{"conversations", []string{"conversations"}, []string{"system"}, (*turnReader).list},
		{"prompt and completion", []string{"prompt", "completion"}, nil, (*turnReader).exchange},
		{"instruction and output", []string{"instruction", "output"}, []string{"input", "system"}, (*turnReader).instruction},
		{spec.Text[0] + " and " + spec.Label[0], []string{spec.Text[0], spec.Label[0]}, nil, (*turnReader).exchange},
	}
}

// readConversations reads a file of conversations, in the form of its first row.
func readConversations(d *Dataset, path string, f file, to *texts) error {
	t, err := openTable(path, f, d.Spec)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var of *form
	r := &turnReader{}
	for {
		line, _, err := t.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if of == nil {
			if of, err = formOf(d.Spec, t); err != nil {
				return fmt.Errorf("%s: %s %d: %w", path, t.unit, line, err)
			}
		}
		example := Example{Place: fmt.Sprintf("%s: %s %d", filepath.Base(path), t.unit, line)}
		tools := r.tools
		if example.Turns, err = of.read(r, t.value); err == nil {
			err = chat.Check(example.Turns)
			if err != nil && r.tools > tools { // nothing is left without them
				r.empty++
				continue
			}
		}
		if err == nil {
			err = to.add(example)
		}
		if err != nil {
			return fmt.Errorf("%s: %s %d: %w", path, t.unit, line, err)
		}
	}
	name := filepath.Base(path)
	d.Notes = append(d.Notes, fmt.Sprintf("%s: conversations as %s", name, of.about))
	if r.tools > 0 {
		note := fmt.Sprintf("%s: calls of tools and what these said are left out: %d in all", name, r.tools)
		if r.empty > 0 {
			note += fmt.Sprintf(", and conversations of nothing else: %d", r.empty)
		}
		d.Notes = append(d.Notes, note)
	}
	return nil
}

// formOf recognises the form of a row.
func formOf(spec Spec, t *table) (*form, error) {
	all := forms(spec)
	for i, f := range all {
		if !slices.ContainsFunc(f.needs, func(key string) bool { return !slices.Contains(roots(t.header), key) }) {
			return &all[i], nil
		}
	}
	var names []string
	for _, f := range all {
		names = append(names, f.about)
	}
	return nil, fmt.Errorf("expected the keys %s (or others that --text and --label name), found %s", strings.Join(names, ", or "), quoted(roots(t.header), ", "))
}

// roots are the names of columns, of those in lists and records that of these.
func roots(header []string) (names []string) {
	for _, h := range header {
		if name, _, _ := strings.Cut(h, "."); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// read reads one row.
func (f *form) read(r *turnReader, value func(key string) json.RawMessage) ([]chat.Message, error) {
	var values []json.RawMessage
	for _, key := range f.needs {
		v := value(key)
		if len(v) == 0 || string(v) == "null" {
			return nil, fmt.Errorf("expected %s, as in the first row, found no %q", f.about, key)
		}
		values = append(values, v)
	}
	for _, key := range f.more {
		values = append(values, value(key))
	}
	return f.turns(r, values)
}

// turnReader makes messages of JSON, and counts what it leaves out.
type turnReader struct {
	tools int // calls of tools and their words
	empty int // conversations of which nothing else is left
}

// list reads messages with role and content, or from and value; after them may come the
// system's words.
func (r *turnReader) list(values []json.RawMessage) ([]chat.Message, error) {
	var list []struct {
		Role, From     *string
		Content, Value json.RawMessage
		Calls          json.RawMessage `json:"tool_calls"`
	}
	if err := json.Unmarshal(values[0], &list); err != nil {
		return nil, fmt.Errorf("expected a list of messages with role and content, or from and value, found %.60q", values[0])
	}
	var turns []chat.Message
	for i, m := range list {
		fail := func(err error) ([]chat.Message, error) { return nil, fmt.Errorf("message %d: %w", i+1, err) }
		name, content := m.Role, m.Content
		if name == nil {
			name, content = m.From, m.Value
		}
		if name == nil {
			return fail(errors.New("expected a role, found none"))
		}
		role, err := chat.RoleOf(*name)
		if errors.Is(err, chat.ErrTool) {
			r.tools++
			continue
		}
		if err != nil {
			return fail(err)
		}
		if calls := string(m.Calls); calls != "" && calls != "null" && calls != "[]" {
			if r.tools++; len(content) == 0 || string(content) == "null" || string(content) == `""` {
				continue
			}
		}
		text, err := words(content)
		if err != nil {
			return fail(err)
		}
		turns = append(turns, chat.Message{Role: role, Content: text})
	}
	if len(values) > 1 && (len(turns) == 0 || turns[0].Role != chat.System) {
		return withSystem(values[1], turns)
	}
	return turns, nil
}

// withSystem puts the system's words, if there are any, before the messages.
func withSystem(raw json.RawMessage, turns []chat.Message) ([]chat.Message, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return turns, nil
	}
	text, err := words(raw)
	if err != nil || strings.TrimSpace(text) == "" {
		return turns, err
	}
	return slices.Insert(turns, 0, chat.Message{Role: chat.System, Content: text}), nil
}

// exchange reads a question and its answer, each a text or a list of messages.
func (r *turnReader) exchange(values []json.RawMessage) ([]chat.Message, error) {
	var turns []chat.Message
	for i, role := range []string{chat.User, chat.Assistant} {
		if values[i][0] == '[' {
			more, err := r.list(values[i : i+1])
			if err != nil {
				return nil, err
			}
			turns = append(turns, more...)
			continue
		}
		text, err := words(values[i])
		if err != nil {
			return nil, err
		}
		turns = append(turns, chat.Message{Role: role, Content: text})
	}
	return turns, nil
}

// instruction reads Alpaca's form: an instruction, the output, perhaps an input that
// follows the instruction, and the system's words.
func (r *turnReader) instruction(values []json.RawMessage) ([]chat.Message, error) {
	turns, err := r.exchange(values[:2])
	if err != nil {
		return nil, err
	}
	if input := values[2]; len(input) > 0 && string(input) != "null" {
		text, err := words(input)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(text) != "" {
			turns[0].Content += "\n\n" + text
		}
	}
	return withSystem(values[3], turns)
}

// words is a text, or the texts of a list of parts.
func words(raw json.RawMessage) (string, error) {
	if text, ok := scalar(raw); ok {
		return tokenize.Valid(text), nil
	}
	var parts []struct {
		Type string
		Text *string
	}
	if err := json.Unmarshal(raw, &parts); err != nil || len(parts) == 0 {
		if len(raw) == 0 || string(raw) == "null" {
			return "", errors.New("expected a text, found none")
		}
		return "", fmt.Errorf("expected a text, found %.60q", raw)
	}
	var text strings.Builder
	for _, p := range parts {
		if p.Text == nil || p.Type != "text" && p.Type != "" {
			return "", fmt.Errorf("expected parts of the type text, found %q", p.Type)
		}
		text.WriteString(*p.Text)
	}
	return tokenize.Valid(text.String()), nil
}

// LastAnswer is a conversation before its last answer, and that answer.
func (e *Example) LastAnswer() (before []chat.Message, answer string) {
	for i := len(e.Turns) - 1; i >= 0; i-- {
		if e.Turns[i].Role == chat.Assistant {
			return e.Turns[:i], e.Turns[i].Content
		}
	}
	return e.Turns, ""
}

// Cut is what became of conversations that are longer than a sequence may be.
type Cut struct {
	Conversations, Shorter, LeftOut int
	Tokens, Whole                   int // read, and of all conversations
	// Rows is more than Conversations where each answer is a row, see chat.Template.Encode.
	Rows int
}

// String tells it in words; of nothing cut it says nothing.
func (c *Cut) String() string {
	var parts []string
	if c.Shorter > 0 {
		parts = append(parts, fmt.Sprintf("%d end at an earlier turn", c.Shorter))
	}
	if c.LeftOut > 0 {
		parts = append(parts, fmt.Sprintf("%d, whose first answer does not fit, are left out", c.LeftOut))
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("of %d conversations %s: %.1f %% of the tokens go", c.Conversations, strings.Join(parts, " and "), 100*(1-float64(c.Tokens)/float64(c.Whole)))
}

// EncodeChat tokenizes conversations with a model's template, see chat.Template.Encode.
// vocab, progress and the error are as Encode's.
func EncodeChat(tok tokenize.Tokenizer, examples []Example, t *chat.Template, loss chat.Loss, vocab, length int, progress func(done, total int)) (*Encoded, error) {
	var mu sync.Mutex
	cut := &Cut{Conversations: len(examples)}
	e, err := encode(examples, vocab, progress, func(e *Example, to *Encoded) error {
		rows, err := t.Encode(tok, e.Turns, loss, length)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		last := rows[len(rows)-1]
		switch cut.Whole += last.Whole; {
		case len(last.IDs) == 0:
			cut.LeftOut++
			return nil
		case len(last.IDs) < last.Whole:
			cut.Shorter++
		}
		cut.Tokens += len(last.IDs)
		for _, r := range rows {
			to.IDs, to.Targets = append(to.IDs, r.IDs...), append(to.Targets, r.Targets...)
			to.Offsets = append(to.Offsets, len(to.IDs))
			cut.Rows++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if e.Len() == 0 {
		return nil, fmt.Errorf("expected conversations whose first answer ends within %d tokens, found none", length)
	}
	e.Cut, e.Template = cut, t
	return e, nil
}
