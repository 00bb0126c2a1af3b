package chat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mlpfusion/tokenize"
)

// golden is what scripts/goldens/chat.py writes.
type golden struct {
	Template  string
	Tokenizer string
	Special   map[string]string
	Messages  []Message
	Text      *string // nil: the template raises Error
	Reply     string
	Error     string
	IDs       []int32
	Mask      [][2]int
}

func goldens(t *testing.T) []golden {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []golden
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 100 {
		t.Fatalf("expected the cases of nine templates, found %d", len(cases))
	}
	return cases
}

func (g *golden) template(t *testing.T) *Template {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("testdata", g.Template+".jinja"))
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := New(string(source), g.Template, g.Special)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func tokenizerOf(t *testing.T, name string) tokenize.Tokenizer {
	t.Helper()
	tok, err := tokenize.Load(filepath.Join("..", "tokenize", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestRender compares texts and ids with apply_chat_template.
func TestRender(t *testing.T) {
	for _, g := range goldens(t) {
		tmpl := g.template(t)
		text, err := tmpl.Render(g.Messages, false)
		if g.Text == nil {
			if err == nil || !strings.Contains(err.Error(), g.Error) {
				t.Errorf("%s of %v: expected the error %q, found %q and %v", g.Template, g.Messages, g.Error, text, err)
			}
			continue
		}
		reply, errReply := tmpl.Render(g.Messages, true)
		if err != nil || errReply != nil || text != *g.Text || reply != g.Reply {
			t.Errorf("%s of %v: %v, %v\nfound %q\n and  %q\nwant  %q\n and  %q", g.Template, g.Messages, err, errReply, text, reply, *g.Text, g.Reply)
			continue
		}
		if ids, _ := tokenizerOf(t, g.Tokenizer).Plain(text); !slices.Equal(ids, g.IDs) {
			t.Errorf("%s of %v:\nfound %v\nwant  %v", g.Template, g.Messages, ids, g.IDs)
		}
	}
}

// TestMask compares the tokens that are learnt with return_assistant_tokens_mask.
func TestMask(t *testing.T) {
	compared := 0
	for _, g := range goldens(t) {
		if g.Mask == nil || g.Text == nil || len(g.Mask) == 0 {
			continue
		}
		_, words, err := g.template(t).tokens(tokenizerOf(t, g.Tokenizer), g.Messages, OnAssistant)
		var found [][2]int
		for _, w := range words {
			if n := len(found); n > 0 && found[n-1][1] == w.from {
				found[n-1][1] = w.to
				continue
			}
			found = append(found, [2]int{w.from, w.to})
		}
		if err != nil || !slices.Equal(found, g.Mask) {
			t.Errorf("%s of %v: %v\nfound %v\nwant  %v", g.Template, g.Messages, err, found, g.Mask)
		}
		compared++
	}
	if compared < 15 {
		t.Errorf("compared %d masks only", compared)
	}
}

// TestPrefixes checks that the words found by rendering beginnings are those between
// generation marks: the template marked without its marks.
func TestPrefixes(t *testing.T) {
	source, err := os.ReadFile("testdata/marked.jinja")
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.NewReplacer("{%- generation %}", "{%- if true %}", "{%- endgeneration %}", "{%- endif %}").Replace(string(source))
	compared := 0
	for _, g := range goldens(t) {
		if g.Template != "marked" || len(g.Mask) == 0 || g.Messages[0].Role == Assistant {
			continue
		}
		tmpl, err := New(bare, "bare", g.Special)
		if err != nil {
			t.Fatal(err)
		}
		tok := tokenizerOf(t, g.Tokenizer)
		for _, loss := range []Loss{OnAssistant, OnLast, OnAll} {
			want, errWant := g.template(t).Encode(tok, g.Messages, loss, 1000)
			found, err := tmpl.Encode(tok, g.Messages, loss, 1000)
			if err != nil || errWant != nil || len(want) != 1 || !slices.EqualFunc(found, want, sameRow) {
				t.Errorf("%s of %v: %v, %v\nfound %v\nwant  %v", loss, g.Messages, err, errWant, found, want)
			}
		}
		compared++
	}
	if compared < 10 {
		t.Errorf("compared %d conversations only", compared)
	}
}

func sameRow(a, b Row) bool {
	return slices.Equal(a.IDs, b.IDs) && slices.Equal(a.Targets, b.Targets) && a.Whole == b.Whole
}

// TestTargets checks, for all templates, that what is learnt is each answer with the
// token that ends it, and the last alone where that is asked for.
func TestTargets(t *testing.T) {
	compared := 0
	for _, g := range goldens(t) {
		if g.Text == nil || Check(g.Messages) != nil || g.Messages[0].Role == Assistant || g.Template == "spaces" || g.Template == "qwen3" {
			continue
		}
		tok := tokenizerOf(t, g.Tokenizer)
		learnt := func(loss Loss) (parts []string) {
			rows, err := g.template(t).Encode(tok, g.Messages, loss, 1000)
			if err != nil {
				t.Fatalf("%s of %v: %v", g.Template, g.Messages, err)
			}
			for _, r := range rows {
				var part []int32
				for i, id := range append(r.Targets, -1) {
					if id >= 0 && i+1 < len(r.IDs) && id != r.IDs[i+1] {
						t.Fatalf("%s of %v: target %d is not the next token", g.Template, g.Messages, i)
					}
					if id >= 0 {
						part = append(part, id)
					} else if len(part) > 0 {
						parts, part = append(parts, strings.TrimSpace(tok.Decode(part))), nil
					}
				}
			}
			return parts
		}
		var want []string
		for i, m := range g.Messages {
			if m.Role == Assistant && i > 0 {
				ids, _ := tok.Plain(strings.TrimSpace(m.Content))
				want = append(want, strings.TrimSpace(tok.Decode(ids)))
			}
		}
		for loss, want := range map[Loss][]string{OnAssistant: want, OnLast: want[len(want)-1:]} {
			parts := learnt(loss)
			if len(parts) != len(want) {
				t.Errorf("%s of %v: %s: found %q, want %q", g.Template, g.Messages, loss, parts, want)
				continue
			}
			for i := range want {
				if !strings.HasPrefix(parts[i], want[i]) {
					t.Errorf("%s of %v: %s: found %q, want %q", g.Template, g.Messages, loss, parts, want)
				}
			}
			compared++
		}
	}
	if compared < 100 {
		t.Errorf("compared %d conversations only", compared)
	}
}

// TestCut checks that a conversation that is too long ends with the last answer that
// fits.
func TestCut(t *testing.T) {
	tok := tokenizerOf(t, "smollm")
	g := golden{Template: "smollm"}
	tmpl := g.template(t)
	turns := []Message{{System, "You are terse."}, {User, "Name a colour."}, {Assistant, "Blue."}, {User, "Another?"}, {Assistant, "Red."}, {User, "And one more?"}, {Assistant, "A long list of them, with green."}}
	encode := func(turns []Message, loss Loss, length int) Row {
		rows, err := tmpl.Encode(tok, turns, loss, length)
		if err != nil || len(rows) != 1 {
			t.Fatalf("%s at %d tokens: %v, %d rows", loss, length, err, len(rows))
		}
		return rows[0]
	}
	for _, loss := range []Loss{OnAssistant, OnLast, OnAll} {
		ends := []Row{{}} // of the conversation after this many answers
		for n := 3; n <= len(turns); n += 2 {
			ends = append(ends, encode(turns[:n], loss, 1000))
		}
		whole := ends[len(ends)-1]
		if whole.Whole != len(whole.IDs) {
			t.Fatalf("%s: %d of %d tokens", loss, len(whole.IDs), whole.Whole)
		}
		for n, want := range ends {
			want.Whole = whole.Whole
			upTo := len(whole.IDs)
			if n+1 < len(ends) {
				upTo = len(ends[n+1].IDs) - 1
			}
			for _, length := range []int{len(want.IDs), upTo} {
				if found := encode(turns, loss, length); !sameRow(found, want) {
					t.Errorf("%s at %d tokens: found %v\nwant %v", loss, length, found, want)
				}
			}
		}
	}
}

// TestRewritten checks that of a template that writes earlier answers in another way,
// each answer is learnt behind the text that asks for it.
func TestRewritten(t *testing.T) {
	tok := tokenizerOf(t, "qwen")
	tmpl := (&golden{Template: "qwen3"}).template(t)
	turns := []Message{{User, "a"}, {Assistant, "<think>one</think>b"}, {User, "c"}, {Assistant, "d"}}
	rows, err := tmpl.Encode(tok, turns, OnAssistant, 1000)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%v, %d rows", err, len(rows))
	}
	for n, want := range []string{"<think>\none\n</think>\n\nb", "<think>\n\n</think>\n\nd"} {
		prompt, err := tmpl.Render(turns[:2*n+1], true)
		if err != nil {
			t.Fatal(err)
		}
		ids, _ := tok.Plain(prompt)
		answer, _ := tok.Plain(want + "<|im_end|>")
		all := slices.Concat(ids, answer)
		targets := slices.Repeat([]int32{-1}, len(ids)-1)
		if r := (Row{all[:len(all)-1], append(targets, answer...), len(all) - 1}); !sameRow(rows[n], r) {
			t.Errorf("answer %d: found %v\nwant %v", n+1, rows[n], r)
		}
	}
	// An answer that does not fit leaves no second row of those before it.
	if rows, err = tmpl.Encode(tok, turns, OnAssistant, len(rows[0].IDs)); err != nil || len(rows) != 1 {
		t.Errorf("%v, %d rows", err, len(rows))
	}
}

// TestRefused checks what is said of templates and conversations that cannot be used.
func TestRefused(t *testing.T) {
	tok := tokenizerOf(t, "qwen")
	hi := []Message{{User, "hi"}, {Assistant, "ho"}}
	more := append(slices.Clone(hi), Message{User, "he"}, Message{Assistant, "ha"})
	for _, c := range []struct {
		source   string
		messages []Message
		want     string
	}{
		{"{{ messages[0].content }}", nil, "expected a conversation, found an empty one"},
		{"{{ messages[0].content }}", hi[:1], "expected an answer of the assistant, found none in 1 message"},
		{"{{ raise_exception('no ' + messages[0].role) }}", hi, "t: chat template: no user"},
		{"{% include 'other' %}", hi, `t: chat template: .*unknown statement "include"`},
		{"{{ messages[0].content | nosuch }}", hi, `t: chat template: unknown filter "nosuch"`},
		{"a\n{{ messages", hi, "t: chat template: line 2: expected the end of a tag, found none"},
		{"a\n\n{% raw %}", hi, "t: chat template: line 3: expected endraw, found none"},
		{"{% for m in messages %}{{ m.role }}", hi, "t: chat template: "},
		{"{% for m in messages %}{{ m.role }}{% endfor %}", hi, "t: chat template: .* leaves out or changes message 1"},
		{"{% for m in messages %}{{ m.content }}{{ loop.last }}{% endfor %}", more, "t: chat template: expected each answer to be added to what is there, found that message 2 is not"},
		{"{% for m in messages %}{{ m.content }}{% endfor %}{% generation %}{% endgeneration %}", hi, "t: chat template: expected words of the assistant, found none"},
		{"{% generation %}{% generation %}{{ messages[0].content }}{% endgeneration %}{% endgeneration %}", hi, "t: chat template: .* one within another"},
		{"{{ messages[0].content }}", []Message{{User, "\uFDD0"}, {Assistant, ""}}, "noncharacters"},
	} {
		tmpl, err := New(c.source, "t", nil)
		if err == nil {
			_, err = tmpl.Encode(tok, c.messages, OnAssistant, 100)
		}
		if err == nil || !regexp.MustCompile(c.want).MatchString(err.Error()) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q of %v: found %v, want %s", c.source, c.messages, err, c.want)
		}
	}
}
