package task

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"mlpfusion/chat"
)

func turns(roles string, texts ...string) []chat.Message {
	var list []chat.Message
	for i, t := range texts {
		list = append(list, chat.Message{Role: map[byte]string{'s': chat.System, 'u': chat.User, 'a': chat.Assistant}[roles[i]], Content: t})
	}
	return list
}

// TestConversations checks the forms of conversations, what is said of them, and what is
// refused.
func TestConversations(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		cols             Columns
		want             [][]chat.Message
		notes            string
		err              string
	}{
		{name: "messages", text: `{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 1}
{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}`,
			want: [][]chat.Message{turns("ua", "a", "b"), turns("sua", "s", "c", "d")}, notes: "x.jsonl: conversations as messages"},
		{name: "a list", file: "x.json", text: `[{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "A"}]}, {"role": "assistant", "content": "b"}]}]`,
			want: [][]chat.Message{turns("ua", "aA", "b")}, notes: "x.json: conversations as messages"},
		{name: "ShareGPT", text: `{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}
{"conversations": [{"from": "system", "value": "t"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}`,
			want: [][]chat.Message{turns("sua", "s", "a", "b"), turns("sua", "t", "a", "b")}, notes: "x.jsonl: conversations as conversations"},
		{name: "prompt and completion", text: `{"prompt": "a", "completion": "b"}`, want: [][]chat.Message{turns("ua", "a", "b")}, notes: "x.jsonl: conversations as prompt and completion"},
		{name: "prompt of messages", text: `{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}`,
			want: [][]chat.Message{turns("sua", "s", "a", "b")}, notes: "x.jsonl: conversations as prompt and completion"},
		{name: "Alpaca", text: `{"instruction": "a", "input": "x", "output": "b"}
{"instruction": "a", "input": "", "output": "b", "system": "s"}`, want: [][]chat.Message{turns("ua", "a\n\nx", "b"), turns("sua", "s", "a", "b")}, notes: "x.jsonl: conversations as instruction and output"},
		{name: "question and answer", text: `{"question": "a", "answer": "b"}`, want: [][]chat.Message{turns("ua", "a", "b")}, notes: "x.jsonl: conversations as question and answer"},
		{name: "named columns", cols: Columns{Text: "q", Label: "r"}, text: `{"q": "a", "r": 4}`, want: [][]chat.Message{turns("ua", "a", "4")}, notes: "x.jsonl: conversations as q and r"},
		{name: "tools", text: `{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": [{"id": 1}]}, {"role": "tool", "content": "4"}, {"role": "assistant", "content": "b", "tool_calls": []}]}
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]}`,
			want: [][]chat.Message{turns("ua", "a", "b")}, notes: "x.jsonl: conversations as messages; x.jsonl: calls of tools and what these said are left out: 3 in all, and conversations of nothing else: 1"},

		{name: "no form", text: `{"a": 1, "b": 2}`, err: `x.jsonl: line 1: expected the keys messages, or conversations, or prompt and completion, or instruction and output, or question and answer \(or others that --text and --label name\), found "a", "b"$`},
		{name: "another form", text: `{"question": "a", "answer": "b"}` + "\n\n" + `{"messages": []}`, err: `x.jsonl: line 3: expected question and answer, as in the first row, found no "question"$`},
		{name: "an unknown role", text: `{"messages": [{"role": "narrator", "content": "a"}]}`, err: `x.jsonl: line 1: message 1: expected the role system, user or assistant, found "narrator"$`},
		{name: "no role", text: `{"messages": [{"content": "a"}]}`, err: `x.jsonl: line 1: message 1: expected a role, found none$`},
		{name: "an empty conversation", text: `{"messages": []}`, err: `x.jsonl: line 1: expected a conversation, found an empty one$`},
		{name: "no answer", text: `{"messages": [{"role": "user", "content": "a"}]}`, err: `x.jsonl: line 1: expected an answer of the assistant, found none in 1 message$`},
		{name: "no content", text: `{"messages": [{"role": "user", "content": null}]}`, err: `x.jsonl: line 1: message 1: expected a text, found none$`},
		{name: "an image", text: `{"messages": [{"role": "user", "content": [{"type": "image"}]}]}`, err: `x.jsonl: line 1: message 1: expected parts of the type text, found "image"$`},
		{name: "no list", text: `{"messages": "a"}`, err: `x.jsonl: line 1: expected a list of messages with role and content, or from and value, found`},
		{name: "an empty file", text: ``, err: `x.jsonl: expected at least one row, found an empty data set$`},
	} {
		file := c.file
		if file == "" {
			file = "x.jsonl"
		}
		d, err := Load(spec(t, "chat"), filepath.Join(write(t, map[string]string{file: c.text}), file), c.cols)
		if c.err != "" {
			if err == nil || !regexp.MustCompile(c.err).MatchString(err.Error()) {
				t.Errorf("%s: found %v, want %s", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var found [][]chat.Message
		for _, e := range d.Train {
			found = append(found, e.Turns)
		}
		if notes := strings.Join(d.Notes, "; "); !reflect.DeepEqual(found, c.want) || notes != c.notes {
			t.Errorf("%s: found %v and %q\nwant %v and %q", c.name, found, notes, c.want, c.notes)
		}
	}
}

// TestConversationsInParquet checks lists of records, and plain columns, in shards of the
// Hub's folder.
func TestConversationsInParquet(t *testing.T) {
	type message struct {
		Content *string  `parquet:"content,optional"`
		Role    string   `parquet:"role"`
		Tags    []string `parquet:"tags,list"`
	}
	type row struct {
		ID       int64     `parquet:"id"`
		Messages []message `parquet:"messages,list"`
	}
	text := func(s string) *string { return &s }
	good := []row{
		{1, []message{{text("a"), "user", []string{"x", "y"}}, {text("b"), "assistant", nil}}},
		{2, []message{{text("s"), "system", nil}, {text("c"), "user", nil}, {text("d"), "assistant", []string{"z"}}}},
	}
	shard := func(rows ...row) string {
		var b bytes.Buffer
		if err := parquet.Write(&b, rows); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	dir := write(t, map[string]string{"data/train-00000-of-00002.parquet": shard(good[0]), "data/train-00001-of-00002.parquet": shard(good[1])})
	d, err := Load(spec(t, "chat"), dir, Columns{})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]chat.Message{turns("ua", "a", "b"), turns("sua", "s", "c", "d")}
	if len(d.Train) != 2 || !reflect.DeepEqual(d.Train[0].Turns, want[0]) || !reflect.DeepEqual(d.Train[1].Turns, want[1]) || d.Train[1].Place != "train-00001-of-00002.parquet: row 1" {
		t.Errorf("found %+v", d.Train)
	}
	for want, rows := range map[string][]row{
		`row 2: expected a conversation, found an empty one$`: {good[0], {ID: 3}},
		`row 1: message 1: expected a text, found none$`:      {{1, []message{{nil, "user", nil}}}},
	} {
		path := filepath.Join(write(t, map[string]string{"x.parquet": shard(rows...)}), "x.parquet")
		if _, err := Load(spec(t, "chat"), path, Columns{}); err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("found %v, want %s", err, want)
		}
	}
	type pair struct {
		Question, Answer string
	}
	var b bytes.Buffer
	if err := parquet.Write(&b, []pair{{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(write(t, map[string]string{"x.parquet": b.String()}), "x.parquet")
	d, err = Load(spec(t, "chat"), path, Columns{Text: "Question", Label: "Answer"})
	if err != nil || len(d.Train) != 1 || !reflect.DeepEqual(d.Train[0].Turns, want[0]) {
		t.Errorf("found %+v, %v", d, err)
	}
}

// TestEncodeChat checks which rows become of conversations, and what is said of those
// that are too long.
func TestEncodeChat(t *testing.T) {
	source, err := os.ReadFile("../chat/testdata/smollm.jinja")
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := chat.New(string(source), "smollm", nil)
	if err != nil {
		t.Fatal(err)
	}
	examples := []Example{
		{Turns: turns("sua", "", "a", "b")},
		{Turns: turns("suaua", "", "a", "b", strings.Repeat("long ", 20), "c")},
		{Turns: turns("sua", "", strings.Repeat("long ", 20), "c")},
	}
	short := len("<|im_start|>system\n<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>") - 1
	for threads := range 2 {
		e, err := EncodeChat(letters{}, slices.Repeat(examples, 1+300*threads), tmpl, chat.OnAssistant, 256, 120, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 2 * (1 + 300*threads)
		if e.Len() != n || len(e.IDs) != n*short || len(e.Targets) != n*short || !slices.Equal(e.IDs[:short], e.IDs[short:2*short]) {
			t.Fatalf("found %d rows of %d tokens, want %d of %d", e.Len(), len(e.IDs), n, n*short)
		}
		learnt := ""
		for _, id := range e.Targets[:short] {
			if id >= 0 {
				learnt += string(rune(id))
			}
		}
		if learnt != "b<|im_end|>" {
			t.Errorf("learnt is %q", learnt)
		}
		whole := 3*short + len("\n<|im_start|>user\n"+strings.Repeat("long ", 20)+"<|im_end|>\n<|im_start|>assistant\nc<|im_end|>") + 99
		want := fmt.Sprintf("of %d conversations %d end at an earlier turn and %d, whose first answer does not fit, are left out: %.1f %% of the tokens go",
			3*n/2, n/2, n/2, 100*(1-float64(2*short)/float64(whole)))
		if e.Cut.String() != want {
			t.Errorf("found %q\nwant %q", e.Cut, want)
		}
	}
	if _, err := EncodeChat(letters{}, examples[2:], tmpl, chat.OnAssistant, 256, 120, nil); err == nil || err.Error() != "expected conversations whose first answer ends within 120 tokens, found none" {
		t.Errorf("found %v", err)
	}
	examples[1].Place = "x.jsonl: line 2"
	examples[1].Turns = turns("ua", "a", "\uFDD1")
	if _, err := EncodeChat(letters{}, examples, tmpl, chat.OnAssistant, 256, 120, nil); err == nil || !strings.HasPrefix(err.Error(), "x.jsonl: line 2: expected text, found one of the noncharacters") {
		t.Errorf("found %v", err)
	}
}
