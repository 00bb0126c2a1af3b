package tokenize

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/internal/golden"
)

// goldens is testdata/golden.json: what transformers' fast tokenizers gave.
type goldens struct {
	Sentences  string
	CodePoints map[string]string `json:"code_points"`
	Regexes    map[string]string
	Lines      map[string]string
	GGUF       map[string]expected
	Tokenizers map[string]expected
}

// expected is what a tokenizer makes of all texts: ids, ids of truncated pairs
// and decoded ids as SHA-256 sums, some ids in full.
type expected struct {
	Config              json.RawMessage `json:",omitempty"`
	IDs, Pairs, Decoded string
	Sample              [][]int32 `json:",omitempty"`
}

func (want expected) compare(t *testing.T, tok Tokenizer, texts []string) {
	t.Helper()
	ids, pairs, decoded := sha256.New(), sha256.New(), sha256.New()
	for i, s := range texts {
		e := tok.Encode(s, nil, 0)
		if i < len(want.Sample) && !slices.Equal(e.IDs, want.Sample[i]) {
			t.Errorf("sentence %d %q:\n got %v\nwant %v", i, s, e.IDs, want.Sample[i])
		}
		fmt.Fprintln(ids, spaced(e.IDs))
		fmt.Fprintln(decoded, tok.Decode(e.IDs))
		next := texts[(i+1)%len(texts)]
		e = tok.Encode(s, &next, 6+i%40)
		fmt.Fprintf(pairs, "%s|%s\n", spaced(e.IDs), spaced(e.Types))
	}
	for what, got := range map[string][2]string{"ids": {sum(ids), want.IDs}, "pairs": {sum(pairs), want.Pairs}, "decoded texts": {sum(decoded), want.Decoded}} {
		if got[0] != got[1] {
			t.Errorf("%s of %d sentences: SHA-256 %s, transformers' is %s", what, len(texts), got[0], got[1])
		}
	}
}

func readGoldens(t testing.TB) goldens {
	t.Helper()
	var g goldens
	golden.JSON(t, "testdata/golden.json", &g)
	return g
}

// dataFolder is where the real vocabularies may be.
func dataFolder() string {
	if d := os.Getenv("MLPFUSION_DATA"); d != "" {
		return d
	}
	return "../../shared/data"
}

// folders says where each tokenizer's files are; those under dataFolder are
// read in place.
var folders = map[string]string{
	"bert": "bert-base-uncased", "bert-cased": "bert-base-uncased", "mpnet": "bert-base-uncased",
	"gpt2": "gpt2", "gpt2-bos": "gpt2", "roberta": "gpt2",
	"t5-albert": "albert-sentencepiece", "t5-test": "sentencepiece-test",
}

// open loads a tokenizer of the goldens, or skips the test.
func open(t testing.TB, name string, config json.RawMessage) Tokenizer {
	t.Helper()
	dir := filepath.Join("testdata", name)
	if variable := map[string]string{"minilm": "MLPFUSION_MINILM", "smollm2": "MLPFUSION_SMOLLM2"}[name]; variable != "" {
		if dir = os.Getenv(variable); dir == "" {
			t.Skipf("%s is not set: the real model's tokenizer is not compared", variable)
		}
	}
	if f := folders[name]; f != "" {
		source, err := filepath.Abs(filepath.Join(dataFolder(), "tokenizers", f))
		if err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(source)
		if err != nil {
			t.Skipf("no real vocabulary: %v", err)
		}
		dir = t.TempDir()
		for _, file := range files {
			to := file.Name()
			if strings.HasSuffix(to, ".model") {
				to = "spiece.model"
			}
			if err := os.Symlink(filepath.Join(source, file.Name()), filepath.Join(dir, to)); err != nil {
				t.Fatal(err)
			}
		}
		if len(config) > 0 && string(config) != "null" {
			if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), config, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// written are the texts of testdata/texts.json: code, numbers, white space.
func written(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/texts.json")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	if err := json.Unmarshal(data, &texts); err != nil {
		t.Fatal(err)
	}
	return texts
}

func spaced(ids []int32) string { return strings.Trim(fmt.Sprint(ids), "[]") }

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func TestAgainstTransformers(t *testing.T) {
	g := readGoldens(t)
	texts := append(sentences(), written(t)...)
	valid := make([]string, len(texts))
	for i, s := range texts {
		valid[i] = Valid(s)
	}
	h := sha256.New()
	h.Write([]byte(strings.Join(valid, "\n")))
	if sum(h) != g.Sentences {
		t.Fatalf("the sentences are not those of the goldens, or invalid UTF-8 is not replaced as in Python")
	}
	for name, want := range g.Tokenizers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want.compare(t, open(t, name, want.Config), texts)
		})
	}
}

// TestRegexes compares the pieces that patterns cut all texts into.
func TestRegexes(t *testing.T) {
	texts := append(sentences(), written(t)...)
	for pattern, want := range readGoldens(t).Regexes {
		r, err := compileRegex(pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		h := sha256.New()
		for _, s := range texts {
			var p pieces
			splitter{r.find, "Isolated", false}.split([]byte(Valid(s)), true, &p)
			from := 0
			for i, end := range p.ends {
				if i > 0 {
					h.Write([]byte{0})
				}
				h.Write(p.buf[from:end])
				from = end
			}
			h.Write([]byte{'\n'})
		}
		if sum(h) != want {
			t.Errorf("%s does not cut the texts as the peer does", pattern)
		}
	}
}

// TestDataSets compares the ids of the lines of several data sets.
func TestDataSets(t *testing.T) {
	var lines []string
	for _, name := range []string{"SST-2/dev.tsv", "GSM8K/test.jsonl", "E2E/devset.csv", "CoNLL-2003/test.txt",
		"WikiText-2/wiki.test.raw", "tinyshakespeare/input.txt"} {
		data, err := os.ReadFile(filepath.Join(dataFolder(), name))
		if err != nil {
			t.Skipf("no data sets: %v", err)
		}
		for line := range strings.Lines(string(data)) {
			lines = append(lines, line)
		}
	}
	for name, want := range readGoldens(t).Lines {
		t.Run(name, func(t *testing.T) {
			tok := open(t, name, nil)
			h := sha256.New()
			for _, s := range lines {
				fmt.Fprintln(h, spaced(tok.Encode(s, nil, 0).IDs))
			}
			if sum(h) != want {
				t.Errorf("other ids than the peer's")
			}
		})
	}
}

// TestBeside compares what transformers makes of the files beside a vocabulary.
func TestBeside(t *testing.T) {
	var cases []struct {
		Files map[string]string
		Text  string
		IDs   []int32
		Size  int
		Pad   int32
	}
	golden.JSON(t, "testdata/beside.json", &cases)
	for _, c := range cases {
		tok, err := Load(write(t, c.Files))
		if err != nil {
			t.Errorf("%s: %v", c.Files["tokenizer_config.json"], err)
			continue
		}
		if got := tok.Encode(c.Text, nil, 0).IDs; !slices.Equal(got, c.IDs) || tok.VocabSize() != c.Size || c.Pad >= 0 && tok.PadID() != c.Pad {
			t.Errorf("%s:\n got %v of %d, pad %d\nwant %v of %d, pad %d", c.Files["tokenizer_config.json"], got, tok.VocabSize(), tok.PadID(), c.IDs, c.Size, c.Pad)
		}
	}
}
