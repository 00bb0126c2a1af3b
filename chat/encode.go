package chat

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mlpfusion/internal/choice"
	"mlpfusion/tokenize"
)

// Loss says which words of a conversation are learnt.
type Loss string

// The words of the assistant, all words, and the assistant's last answer.
const (
	OnAssistant Loss = "assistant"
	OnAll       Loss = "all"
	OnLast      Loss = "last"
)

// ParseLoss reads the name of a Loss.
func ParseLoss(name string) (Loss, error) {
	for _, l := range []Loss{OnAssistant, OnAll, OnLast} {
		if string(l) == name {
			return l, nil
		}
	}
	return "", choice.Unknown(name, []string{string(OnAssistant), string(OnAll), string(OnLast)})
}

// Row is a conversation as a language model learns it.
type Row struct {
	IDs     []int32
	Targets []int32 // of each token the one to be predicted after it, or −1; none in a conversation that was left out
	// Whole is the number of tokens of the whole conversation, which may be more than
	// are in IDs where it was too long.
	Whole int
}

// Encode turns a conversation into tokens of a model: one row of at most length tokens.
// Of a longer conversation the last turns go until it ends with an answer that fits;
// one whose first answer does not fit is left out.
//
// Where the template writes earlier answers in another way once more follows, as
// Qwen 3's does with thoughts, each answer is learnt from the conversation as it is
// when the answer is to be given: a row of its own, with its last answer to be learnt.
func (t *Template) Encode(tok tokenize.Tokenizer, messages []Message, loss Loss, length int) ([]Row, error) {
	if err := Check(messages); err != nil {
		return nil, err
	}
	r, err := t.encode(tok, messages, loss, length)
	if err == nil || loss != OnAssistant || !errors.Is(err, errRewritten) {
		return []Row{r}, err
	}
	var rows []Row
	for n := range answerCount(messages) {
		if r, err = t.encode(tok, firstAnswers(messages, n+1), OnLast, length); err != nil {
			return nil, err
		}
		if n == 0 || len(r.IDs) > len(rows[len(rows)-1].IDs) { // not cut to the one before
			rows = append(rows, r)
		}
	}
	rows[len(rows)-1].Whole = r.Whole
	return rows, nil
}

func (t *Template) encode(tok tokenize.Tokenizer, messages []Message, loss Loss, length int) (Row, error) {
	whole := 0
	for {
		ids, words, err := t.tokens(tok, messages, loss)
		if err != nil {
			return Row{}, err
		}
		last := words[len(words)-1].to - 1
		if whole == 0 {
			whole = last
		}
		if last <= length {
			return row(ids[:last+1], words, whole), nil
		}
		fit := answerCount(messages) - 1
		if loss == OnAssistant { // words are answers: what those take says more
			fit = min(fit, fitting(words, length))
		}
		if messages = firstAnswers(messages, fit); len(messages) == 0 {
			return Row{Whole: whole}, nil
		}
	}
}

// fitting counts the spans that end within this many tokens.
func fitting(words []span, length int) (n int) {
	for _, w := range words {
		if w.to-1 <= length {
			n++
		}
	}
	return n
}

// row sets the targets of the tokens in words.
func row(ids []int32, words []span, whole int) Row {
	r := Row{IDs: ids[:len(ids)-1], Targets: make([]int32, len(ids)-1), Whole: whole}
	for i := range r.Targets {
		r.Targets[i] = -1
	}
	for _, w := range words {
		for i := max(w.from, 1); i < w.to; i++ {
			r.Targets[i-1] = ids[i]
		}
	}
	return r
}

// tokens are those of a conversation, and the spans of them that are to be learnt.
func (t *Template) tokens(tok tokenize.Tokenizer, messages []Message, loss Loss) (ids []int32, words []span, err error) {
	if loss == OnLast {
		messages = firstAnswers(messages, answerCount(messages))
	}
	text, spans, err := t.render(messages, false)
	if err == nil {
		err = t.complete(text, messages)
	}
	if err != nil {
		return nil, nil, err
	}
	ids, places := tok.Plain(text)
	if loss == OnAll {
		return ids, []span{{1, len(ids)}}, nil
	}
	if !t.marked {
		if spans, err = t.answers(text, messages, loss); err != nil {
			return nil, nil, err
		}
	}
	if loss == OnLast && len(spans) > 0 {
		spans = spans[len(spans)-1:]
	}
	for _, s := range spans {
		from, _ := tokensAround(tok, text, s.from, ids, places)
		_, to := tokensAround(tok, text, s.to, ids, places)
		if to > from {
			words = append(words, span{from, to})
		}
	}
	if len(words) == 0 {
		return nil, nil, fmt.Errorf("%s: chat template: expected words of the assistant, found none", t.Origin)
	}
	return ids, words, nil
}

// tokensAround finds a byte of a text among its tokens: before tokens end there or
// earlier, and token behind begins there or later. They are the same number unless a
// token reaches across. places are those of the added tokens, between which the text
// is tokenized by itself.
func tokensAround(tok tokenize.Tokenizer, text string, byte int, ids []int32, places []tokenize.Place) (before, behind int) {
	at, _ := slices.BinarySearchFunc(places, byte, func(p tokenize.Place, b int) int { return p.Bytes - b })
	from, to := tokenize.Place{}, tokenize.Place{Bytes: len(text), Tokens: len(ids)}
	if at < len(places) {
		to = places[at]
	}
	if to.Bytes == byte {
		return to.Tokens, to.Tokens
	}
	if at > 0 {
		from = places[at-1]
	}
	ids = ids[from.Tokens:to.Tokens]
	part, _ := tok.Plain(text[from.Bytes:byte])
	n := 0
	for n < min(len(part), len(ids)) && part[n] == ids[n] {
		n++
	}
	if n == len(part) {
		return from.Tokens + n, from.Tokens + n
	}
	// What comes behind may change how the end of what is before is split, as white
	// space is; then what is behind tells.
	part, _ = tok.Plain(text[byte:to.Bytes])
	m := 0
	for m < min(len(part), len(ids)-n) && part[len(part)-1-m] == ids[len(ids)-1-m] {
		m++
	}
	if m == len(part) {
		n = len(ids) - m
	}
	return from.Tokens + n, to.Tokens - m
}

// errRewritten is of a template that writes an answer otherwise than behind the text that
// asks for it.
var errRewritten = errors.New("chat template: expected each answer to be added to what is there")

// answers are the bytes of the assistant's words in a conversation as it is written, with
// what ends them, where the template does not mark them: what an answer adds to the
// text that asks for it. Of the last answer alone the template may write those before in
// another way.
func (t *Template) answers(text string, messages []Message, loss Loss) (spans []span, err error) {
	ending, err := t.ending()
	if err != nil {
		return nil, err
	}
	space := len(ending) - len(strings.TrimRight(ending, " \n"))
	if space == len(ending) {
		space = 0 // it is all that ends an answer
	}
	asked := false
	for i, m := range messages {
		asked = asked || m.Role == User
		if m.Role != Assistant || !asked || loss == OnLast && i < len(messages)-1 {
			continue // what the assistant says unasked is read and not learnt
		}
		before, err := t.Render(messages[:i], true)
		if err != nil {
			return nil, err
		}
		until, err := t.Render(messages[:i+1], false)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(until, before) || !strings.HasPrefix(text, until) {
			return nil, fmt.Errorf("%s: %w, found that message %d is not: give one with {%% generation %%} around the assistant's words", t.Origin, errRewritten, i+1)
		}
		s := span{len(before), len(until)}
		if strings.HasSuffix(until, ending) {
			s.to -= space
		}
		spans = append(spans, s)
	}
	return spans, nil
}

// complete refuses a template that leaves out what the user said, as one does that
// expects images beside it.
func (t *Template) complete(text string, messages []Message) error {
	for i, m := range messages {
		if m.Role == User && !strings.Contains(text, strings.TrimSpace(m.Content)) {
			return fmt.Errorf("%s: chat template: expected one that writes what the user says, found that it leaves out or changes message %d", t.Origin, i+1)
		}
	}
	return nil
}

func answerCount(messages []Message) (n int) {
	for _, m := range messages {
		if m.Role == Assistant {
			n++
		}
	}
	return n
}

// firstAnswers is the beginning of a conversation that ends with its n-th answer.
func firstAnswers(messages []Message, n int) []Message {
	for i, m := range messages {
		if n == 0 {
			break
		}
		if m.Role == Assistant {
			if n--; n == 0 {
				return messages[:i+1]
			}
		}
	}
	return nil
}

// ending is what the template writes behind an answer.
func (t *Template) ending() (string, error) {
	const answer = "an answer"
	text, err := t.Render([]Message{{User, "a question"}, {Assistant, answer}}, false)
	if err != nil {
		return "", err
	}
	i := strings.LastIndex(text, answer)
	if i < 0 {
		return "", fmt.Errorf("%s: chat template: expected one that writes what the assistant says, found another", t.Origin)
	}
	return text[i+len(answer):], nil
}

// End is the token that ends an answer, or −1 if the template ends it with ordinary text.
func (t *Template) End(tok tokenize.Tokenizer) (int32, error) {
	ending, err := t.ending()
	if err != nil {
		return -1, err
	}
	ids, _ := tok.Plain(strings.TrimLeft(ending, " \n"))
	if len(ids) > 0 && tok.Decode(ids[:1]) == "" {
		return ids[0], nil
	}
	return -1, nil
}
