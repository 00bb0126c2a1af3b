package task

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/tokenize"
)

// characters is a tokenizer of one token a byte, without special tokens.
type characters struct{ tokenize.Tokenizer }

func (characters) Encode(text string, _ *string, maxLen int) tokenize.Encoding {
	var e tokenize.Encoding
	for _, c := range []byte(text) {
		e.IDs = append(e.IDs, int32(c))
	}
	if maxLen > 0 && len(e.IDs) > maxLen {
		e.IDs = e.IDs[:maxLen]
	}
	return e
}

// shown writes a row as what is read and, in its place, what is predicted.
func shown(e *Encoded, row int) string {
	name := func(id int32) string {
		switch id {
		case -1:
			return "_"
		case 0:
			return "$"
		}
		return string(rune(id))
	}
	var read, predicted strings.Builder
	for i := e.Offsets[row]; i < e.Offsets[row+1]; i++ {
		read.WriteString(name(e.IDs[i]))
		if e.DecoderOffsets == nil {
			predicted.WriteString(name(e.Targets[i]))
		}
	}
	if e.DecoderOffsets == nil {
		return read.String() + "→" + predicted.String()
	}
	for i := e.DecoderOffsets[row]; i < e.DecoderOffsets[row+1]; i++ {
		predicted.WriteString(name(e.DecoderIDs[i]) + name(e.Targets[i]))
	}
	return read.String() + "→" + predicted.String()
}

func TestEncodeText(t *testing.T) {
	for _, c := range []struct {
		name   string
		format TextFormat
		e      Example
		want   []string
	}{
		{"prompt and text", TextFormat{Vocab: 1000, Length: 20}, Example{Text: "ab", Target: "xyz"}, []string{"ab$ xyz→__ xyz$"}},
		{"a text that is cut", TextFormat{Vocab: 1000, Length: 5}, Example{Text: "ab", Target: "xyz"}, []string{"ab$ x→__ xy"}},
		{"a prompt that is cut", TextFormat{Vocab: 1000, Length: 4}, Example{Text: "abcdef", Target: "xyz"}, []string{"ef$ →__ x"}},
		{"a document", TextFormat{Vocab: 1000, Length: 20}, Example{Target: "xyz"}, []string{"$xyz→xyz$"}},
		{"blocks", TextFormat{Vocab: 1000, Length: 4}, Example{Target: "stuvwxyz"}, []string{"$stu→stuv", "vwxy→wxyz", "z→$"}},
		{"a whole block", TextFormat{Vocab: 1000, Length: 4}, Example{Target: "stu"}, []string{"$stu→stu$"}},
		{"an encoder", TextFormat{Vocab: 1000, Length: 20, Encoder: true, Start: '^'}, Example{Text: "ab", Target: "xy"}, []string{"ab→^xxyy$"}},
		{"an encoder's cut", TextFormat{Vocab: 1000, Length: 3, Encoder: true, Start: '^'}, Example{Text: "abcd", Target: "vwxyz"}, []string{"abc→^vvww$"}},
	} {
		e, err := EncodeText(characters{}, []Example{c.e}, c.format, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range e.Len() {
			got = append(got, shown(e, i))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestEncodeTextRows checks that many texts on many processors come in order, and
// that batches and subsets hold the rows asked for.
func TestEncodeTextRows(t *testing.T) {
	var examples []Example
	for i := range 1000 {
		examples = append(examples, Example{Text: fmt.Sprint(i), Target: strings.Repeat("x", i%7)})
	}
	for _, f := range []TextFormat{{Vocab: 1000, Length: 30}, {Vocab: 1000, Length: 30, Encoder: true, Start: '^'}} {
		all, err := EncodeText(characters{}, examples, f, nil)
		if err != nil {
			t.Fatal(err)
		}
		if all.Len() != len(examples) {
			t.Fatalf("%d rows of %d examples", all.Len(), len(examples))
		}
		order := []int32{999, 3, 3, 500}
		part := all.Subset(order)
		for i, r := range order {
			one, err := EncodeText(characters{}, examples[r:r+1], f, nil)
			if err != nil {
				t.Fatal(err)
			}
			if shown(part, i) != shown(all, int(r)) || shown(part, i) != shown(one, 0) {
				t.Errorf("row %d is %q, %q in a subset, %q alone", r, shown(all, int(r)), shown(part, i), shown(one, 0))
			}
			if part.Length(i) != one.Tokens() {
				t.Errorf("row %d has %d tokens, %d alone", r, part.Length(i), one.Tokens())
			}
		}
	}
}

func TestDocuments(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("train.txt", "\uFEFFone\ntwo\n<|endoftext|>\n\n  <|endoftext|>\nthree")
	write("valid.jsonl", `{"text": "four", "id": 1}`+"\n"+`{"id": 2, "text": "five"}`+"\n")
	write("test.csv", "id,text\n1,six\n")
	spec, err := Lookup("lm")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Load(spec, dir, Columns{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		name string
		got  []Example
		want []string
	}{{"train", d.Train, []string{"one\ntwo\n", "three"}}, {"dev", d.Dev, []string{"four", "five"}}, {"test", d.Test, []string{"six"}}} {
		var texts []string
		for _, e := range s.got {
			texts = append(texts, e.Target)
		}
		if !slices.Equal(texts, s.want) {
			t.Errorf("%s: %q, want %q", s.name, texts, s.want)
		}
	}
	write("test.csv", "id,body\n1,six\n")
	if _, err := Load(spec, dir, Columns{}); err == nil || !strings.Contains(err.Error(), `test.csv: expected a column "text" (or another that --text names), found "id", "body"`) {
		t.Errorf("a table without the column gave %v", err)
	}
	if d, err := Load(spec, filepath.Join(dir, "test.csv"), Columns{Text: "body"}); err != nil || d.Train[0].Target != "six" {
		t.Errorf("another column's name gave %v", err)
	}
	write("test.csv", "")
	write("train.txt", " \n")
	if _, err := Load(spec, dir, Columns{}); err == nil || !strings.Contains(err.Error(), "train.txt: expected at least one entry with a text") {
		t.Errorf("a blank file gave %v", err)
	}
}

func TestCutTails(t *testing.T) {
	begin, end := CutTails([]Example{{Target: "aaaa\nbbbb\ncccc\ndddd"}, {Target: "ééééé"}, {Target: "x"}}, 0.3)
	want := []string{"aaaa\nbbbb\n", "éééé", "x"}
	for i, e := range begin {
		if e.Target != want[i] {
			t.Errorf("beginning %d is %q, want %q", i, e.Target, want[i])
		}
	}
	want = []string{"cccc\ndddd", "é"}
	if len(end) != len(want) {
		t.Fatalf("%d ends, want %d", len(end), len(want))
	}
	for i, e := range end {
		if e.Target != want[i] {
			t.Errorf("end %d is %q, want %q", i, e.Target, want[i])
		}
	}
}

func TestScoreText(t *testing.T) {
	spec, _ := Lookup("lm")
	m, err := ScoreText(spec, -6, 3)
	if err != nil || m[0].Name != spec.Main || !(m[0].Value >= 7.389056) || !(m[0].Value <= 7.389057) || m[1].Value != 2 {
		t.Errorf("e^2 and 2 are %v, %v", m, err)
	}
	for _, targets := range []int{0, 1} {
		if _, err := ScoreText(spec, -1e9, targets); err == nil {
			t.Errorf("a likelihood of e^-1e9 for %d tokens gave no error", targets)
		}
	}
}

// TestWritten checks T5's text-to-text form: the prompts, the words as targets
// behind the start token, and what tells the labels apart.
func TestWritten(t *testing.T) {
	for _, c := range []struct {
		task string
		pair bool
		want string
	}{
		{"sst2", false, "sst2 sentence: a"}, {"mnli", true, "mnli hypothesis: b premise: a"}, {"mrpc", true, "mrpc sentence1: a sentence2: b"},
		{"qnli", true, "qnli question: a sentence: b"}, {"stsb", true, ""}, {"webnlg", false, ""},
	} {
		spec, err := Lookup(c.task)
		if err != nil {
			t.Fatal(err)
		}
		spec, err = spec.AsWritten()
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: expected an error, found none", c.task)
			}
			continue
		}
		if got := spec.Prompt(&Example{Text: "a", Pair: "b", HasPair: c.pair}); err != nil || got != c.want {
			t.Errorf("%s: found %q (%v), want %q", c.task, got, err, c.want)
		}
	}
	spec, _ := Lookup("sst2")
	f := TextFormat{Vocab: 1000, End: 1, Length: 32, Encoder: true, Start: 0}
	e, err := EncodeWritten(characters{}, spec, []Example{{Text: "x", Label: 1}, {Text: "y", Label: 0}}, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	word := func(s string) (ids []int32) {
		return append(characters{}.Encode(s, nil, 0).IDs, 1)
	}
	positive, negative := word("positive"), word("negative")
	if !slices.Equal(e.Targets, append(slices.Clone(positive), negative...)) {
		t.Errorf("targets %v", e.Targets)
	}
	if want := append([]int32{0}, positive[:len(positive)-1]...); !slices.Equal(e.DecoderIDs[:len(want)], want) {
		t.Errorf("the decoder reads %v, want %v first", e.DecoderIDs, want)
	}
	if !slices.Equal(e.LabelWords, []int32{negative[0], positive[0]}) || !slices.Equal(e.Labels, []float32{1, 0}) {
		t.Errorf("labels %v begin with %v", e.Labels, e.LabelWords)
	}
	spec.Labels = []string{"same", "sane"}
	if _, err := EncodeWritten(characters{}, spec, nil, f, nil); err == nil || !strings.Contains(err.Error(), `found "same" and "sane"`) {
		t.Errorf("labels that begin alike give %v", err)
	}
}
