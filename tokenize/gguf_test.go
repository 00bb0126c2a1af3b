package tokenize

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ggufOf is what a GGUF file keeps of testdata's tokenizer of this name.
func ggufOf(t *testing.T, name, model, pre, bos string) GGUF {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		AddedTokens []addedToken `json:"added_tokens"`
		Model       struct {
			Vocab  map[string]int32
			Merges [][2]string
		}
	}
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	n := len(f.Model.Vocab)
	for _, a := range f.AddedTokens {
		n = max(n, int(a.ID)+1)
	}
	g := GGUF{Model: model, Pre: pre, Tokens: make([]string, n), Types: make([]int32, n), BOS: -1, EOS: -1, Unknown: -1, Pad: -1}
	for s, id := range f.Model.Vocab {
		g.Tokens[id], g.Types[id] = s, ggufNormal
		if strings.HasPrefix(s, "<0x") {
			g.Types[id] = 6
		}
	}
	for _, a := range f.AddedTokens {
		g.Tokens[a.ID], g.Types[a.ID] = a.Content, ggufUserDefined
		if a.Special {
			g.Types[a.ID] = ggufControl
		}
	}
	if model == "gpt2" {
		for _, m := range f.Model.Merges {
			g.Merges = append(g.Merges, m[0]+" "+m[1])
		}
	} else {
		g.Unknown = int32(slices.Index(g.Tokens, "<unk>"))
		g.Scores = make([]float32, n)
		for i := range g.Scores {
			g.Scores[i] = -float32(i)
		}
	}
	g.BOS = int32(slices.Index(g.Tokens, bos))
	return g
}

func TestGGUF(t *testing.T) {
	goldens := readGoldens(t)
	texts := append(sentences(), written(t)...)
	no := false
	for _, c := range []struct {
		name, model, pre, bos string
		prefix                *bool
		want                  map[string]expected
	}{
		{"llama3", "gpt2", "llama-bpe", "<|begin_of_text|>", nil, goldens.Tokenizers},
		{"qwen", "gpt2", "qwen2", "", nil, goldens.Tokenizers},
		{"smollm", "gpt2", "smollm", "", &no, goldens.Tokenizers},
		{"gemma", "llama", "default", "<bos>", &no, goldens.GGUF},
		{"mistral", "llama", "default", "<s>", nil, goldens.GGUF},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := ggufOf(t, c.name, c.model, c.pre, c.bos)
			g.SpacePrefix = c.prefix
			tok, err := FromGGUF(g)
			if err != nil {
				t.Fatal(err)
			}
			c.want[c.name].compare(t, tok, texts)
		})
	}
}

func TestGGUFErrors(t *testing.T) {
	good := GGUF{Model: "llama", Tokens: []string{"a", "b", "ab"}, Scores: []float32{0, 0, 0}, Types: []int32{1, 1, 1}, BOS: 0, EOS: -1, Unknown: -1, Pad: -1}
	yes := true
	for _, c := range []struct {
		change func(*GGUF)
		say    string
	}{
		{func(g *GGUF) { g.Tokens = nil }, "tokenizer.ggml.tokens: expected 1 to 16777216 tokens, found 0"},
		{func(g *GGUF) { g.Tokens = []string{"a", "b", "\xff"} }, `tokenizer.ggml.tokens[2]: expected UTF-8, found "\xff"`},
		{func(g *GGUF) { g.Types = g.Types[:1] }, "tokenizer.ggml.token_type: expected 3, one a token, found 1"},
		{func(g *GGUF) { g.Scores = nil }, "tokenizer.ggml.scores: expected 3, one a token, found 0"},
		{func(g *GGUF) { g.Model = "bert" }, `tokenizer.ggml.model: expected gpt2 or llama, found "bert"`},
		{func(g *GGUF) { g.Model, g.Pre = "gpt2", "default" }, `tokenizer.ggml.pre: expected one of dbrx, gpt-2, llama-bpe, llama-v3, llama3, olmo, qwen2, smaug-bpe, smollm, found "default"`},
		{func(g *GGUF) { g.Model, g.Pre, g.Merges = "gpt2", "gpt-2", []string{"ab"} }, `tokenizer.ggml.merges[0]: expected two tokens with a space between, found "ab"`},
		{func(g *GGUF) { g.Model, g.Pre, g.Merges = "gpt2", "gpt-2", []string{"b a"} }, `tokenizer.ggml.merges: merge 0: expected tokens of the vocabulary, found "ba"`},
		{func(g *GGUF) { g.Pad = 3 }, "tokenizer.ggml.padding_token_id: expected an id below 3, found 3"},
		{func(g *GGUF) { g.BOS = -1 }, "tokenizer.ggml.bos_token_id: expected an id, as add_bos_token asks for it, found none"},
		{func(g *GGUF) { g.AddEOS = &yes }, "tokenizer.ggml.eos_token_id: expected an id, as add_eos_token asks for it, found none"},
	} {
		g := good
		c.change(&g)
		if _, err := FromGGUF(g); err == nil || err.Error() != c.say {
			t.Errorf("got error %v\nexpected %s", err, c.say)
		}
	}
	if _, err := FromGGUF(good); err != nil {
		t.Error(err)
	}
}

// TestScoredMerges: by score, and among the ways to one token the longer first part
// first, as transformers' generate_merges.
func TestScoredMerges(t *testing.T) {
	g := GGUF{Tokens: []string{"a", "b", "é", "ab", "bé", "abé", "zz", "z"}, Scores: []float32{0, 0, 0, -2, -1, -3, 5, 0}, Types: []int32{1, 1, 1, 1, 1, 1, ggufUserDefined, 1}}
	vocab := map[string]int32{}
	for id, s := range g.Tokens {
		vocab[s] = int32(id)
	}
	want := [][2]string{{"b", "é"}, {"a", "b"}, {"ab", "é"}, {"a", "bé"}}
	if got := scoredMerges(g, vocab); !slices.Equal(got, want) {
		t.Errorf("got %q, expected %q", got, want)
	}
}
