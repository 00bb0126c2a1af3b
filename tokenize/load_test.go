package tokenize

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const tinyVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n"

// Files made to fill the memory or the time are a sentence.
func TestHostile(t *testing.T) {
	replace := func(n int, from, to string) string {
		one := fmt.Sprintf(`{"type":"Replace","pattern":%s,"content":%q}`, from, to)
		return strings.TrimSuffix(strings.Repeat(one+",", n), ",")
	}
	nested := func(open string, n int) string { return strings.Repeat(open, n) }
	model := `,"model":{"type":"WordPiece","unk_token":"u","vocab":{"u":0,"a":1}}}`
	for name, c := range map[string]struct{ file, text, say string }{
		"brackets":           {"tokenizer.json", nested("[", 10_000_000), "exceeded max depth"},
		"brackets in a part": {"tokenizer.json", `{"normalizer":` + nested("[", 10_000_000), "exceeded max depth"},
		"sequences":          {"tokenizer.json", `{"normalizer":` + nested(`{"type":"Sequence","normalizers":[`, 200_000), "exceeded max depth"},
		"replacements":       {"tokenizer.json", `{"normalizer":{"type":"Sequence","normalizers":[` + replace(64, `{"String":"a"}`, "aa") + `]}` + model, "normalizer.normalizers[8]: expected replacements that make a text at most 256 times longer, found ones that make it 512 times longer"},
		"a long replacement": {"tokenizer.json", `{"normalizer":` + replace(1, `{"Regex":"[a-z]"}`, strings.Repeat("b", 300)) + model, "normalizer: expected replacements that make a text at most 256 times longer"},
		"decoders":           {"tokenizer.json", `{"decoder":{"type":"Sequence","decoders":[` + replace(64, `{"String":"a"}`, "aa") + `]}` + model, "decoder.decoders[8]: expected replacements"},
		"a long pattern":     {"tokenizer.json", `{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"` + nested("a", 5_000_000) + `"},"behavior":"Isolated","invert":false}` + model, "pre_tokenizer.pattern.Regex: expected a regular expression of at most 65536 bytes, found 5000000"},
		"groups":             {"tokenizer.json", `{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"` + nested("(", 60_000) + `"},"behavior":"Isolated","invert":false}` + model, "expected at most 50 groups in each other"},
		"settings":           {"tokenizer_config.json", nested("[", 10_000_000), "tokenizer_config.json: "},
		"a piece's length":   {"spiece.model", "\x0a\xff\xff\xff\xff\x0f" + "a", "spiece.model: "},
		"pieces":             {"spiece.model", nested("\x0a\x00", 1_000_000), "spiece.model: "},
		"protobuf groups":    {"spiece.model", nested("\x0b", 10_000_000), "spiece.model: "},
	} {
		files := map[string]string{c.file: c.text}
		if c.file == "tokenizer_config.json" {
			files["vocab.txt"] = tinyVocab
		}
		dir := write(t, files)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Load(dir)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: expected an error with %q, found %.300v", name, c.say, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%s: expected a sentence, found %d bytes: %.100s…", name, len(err.Error()), err.Error())
		}
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(8*len(c.text)+64<<20); used > most {
			t.Errorf("%s: %d bytes were allocated for a file of %d", name, used, len(c.text))
		}
	}
}

func TestLoadErrors(t *testing.T) {
	// with puts value in the place of a part of a small tokenizer.json.
	with := func(key, value string) string {
		parts := map[string]json.RawMessage{
			"model": json.RawMessage(`{"type":"WordPiece","unk_token":"u","vocab":{"u":0,"a":1}}`),
		}
		parts[key] = json.RawMessage(value)
		b, err := json.Marshal(parts)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, c := range []struct {
		files map[string]string
		say   string
	}{
		{nil, "expected tokenizer.json, vocab.txt, vocab.json with merges.txt, or spiece.model, found none"},
		{map[string]string{"tokenizer.json": "{"}, "tokenizer.json: expected the JSON of a tokenizer"},
		{map[string]string{"tokenizer.json": "{}"}, "tokenizer.json: model: expected a model, found none"},
		{map[string]string{"tokenizer.json": with("normalizer", `{"type":"Nmt"}`)}, `normalizer.type: expected one of BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Precompiled, Prepend, Replace, Sequence, Strip, StripAccents, found "Nmt"`},
		{map[string]string{"tokenizer.json": with("normalizer", `{"type":"Sequence","normalizers":[{"type":"NFC"},{}]}`)}, "normalizer.normalizers[1].type: expected the name of a component, found none"},
		{map[string]string{"tokenizer.json": with("normalizer", `{"type":"BertNormalizer","smile":true}`)}, `normalizer: expected the options of this component: json: unknown field "smile"`},
		{map[string]string{"tokenizer.json": with("normalizer", `{"type":"Precompiled","precompiled_charsmap":"////////"}`)}, "normalizer.precompiled_charsmap: expected a trie of at most 2 bytes, found a size of 4294967295"},
		{map[string]string{"tokenizer.json": with("pre_tokenizer", `{"type":"UnicodeScripts"}`)}, `pre_tokenizer.type: expected one of`},
		{map[string]string{"tokenizer.json": with("pre_tokenizer", `{"type":"Split","pattern":{"Regex":"(?<=a)b"},"behavior":"Isolated","invert":false}`)}, `pre_tokenizer.pattern.Regex: expected a regular expression of sets, properties, repeats, groups and lookahead, found "(?<=a)b": expected a group (…), (?:…), (?i:…), (?=…) or (?!…), found "(?<="`},
		{map[string]string{"tokenizer.json": with("pre_tokenizer", `{"type":"Split","pattern":{"String":"a"},"behavior":"Burned","invert":false}`)}, `pre_tokenizer.behavior: expected one of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous, found "Burned"`},
		{map[string]string{"tokenizer.json": with("post_processor", `{"type":"BertProcessing","sep":["[SEP]",7],"cls":["a",1]}`)}, "post_processor: expected ids of the vocabulary, found 7"},
		{map[string]string{"tokenizer.json": with("post_processor", `{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B","type_id":0}}],"pair":[],"special_tokens":{}}`)}, `post_processor.single: expected the text A, or B in a pair, found "B"`},
		{map[string]string{"tokenizer.json": with("decoder", `{"type":"CTC"}`)}, `decoder.type: expected one of`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"WordLevel","vocab":{}}`)}, `model.type: expected one of BPE, Unigram, WordPiece, found "WordLevel"`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"WordPiece","vocab":{"a":1},"unk_token":"u"}`)}, `model.unk_token: expected a token of the vocabulary, found "u"`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"WordPiece","vocab":{"u":-1},"unk_token":"u"}`)}, `model.vocab["u"]: expected an id from 0 to 16777215, found -1`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"BPE","vocab":{"a":1},"merges":["a b"]}`)}, `model.merges: merge 0: expected tokens of the vocabulary, found "b"`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"BPE","vocab":{"a":1},"merges":["a"]}`)}, `model.merges[0]: expected two tokens with a space between, found "a"`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"BPE","vocab":{"a":1},"merges":[],"dropout":0.1}`)}, `model.dropout: expected none, as leaving merges out at random gives a text other ids each time, found 0.1`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"Unigram","vocab":[["a",0]],"unk_id":3}`)}, `model.unk_id: expected an id below 1, found 3`},
		{map[string]string{"tokenizer.json": with("model", `{"type":"Unigram","vocab":[["a"]]}`)}, `model.vocab[0]: expected a token and its score, found [a]`},
		{map[string]string{"tokenizer.json": with("added_tokens", `[{"id":99999999,"content":"x"}]`)}, `added_tokens[0].id: expected an id from 0 to 16777215, found 99999999`},
		{map[string]string{"tokenizer.json": with("truncation", "null"), "tokenizer_config.json": `{"added_tokens_decoder":{"5":{"content":"b"}}}`}, `tokenizer.json: added tokens: expected the id 2 for "b", which the vocabulary's size leaves, found 5`},
		{map[string]string{"tokenizer.json": with("truncation", "null"), "tokenizer_config.json": `{"additional_special_tokens":"b"}`}, `tokenizer_config.json: additional_special_tokens: expected a list of tokens, found "b"`},
		{map[string]string{"tokenizer.json": with("truncation", "null"), "tokenizer_config.json": `{"additional_special_tokens":["b",5]}`}, `tokenizer_config.json: additional_special_tokens: expected tokens, found 5`},
		{map[string]string{"tokenizer_config.json": `[]`}, "tokenizer_config.json: expected an object, found a list"},
		{map[string]string{"tokenizer_config.json": `{"do_lower_case":"yes"}`}, "tokenizer_config.json: do_lower_case: expected true or false, found a string"},
		{map[string]string{"tokenizer_config.json": `{"truncation_side":"up"}`}, `tokenizer_config.json: truncation_side: expected left or right, found "up"`},
		{map[string]string{"vocab.txt": "a\nb\n"}, `vocab.txt: expected the cls_token "[CLS]", found none`},
		{map[string]string{"vocab.txt": tinyVocab, "added_tokens.json": `{"x":7}`}, `vocab.txt: added tokens: expected the id 6 for "x", which the vocabulary's size leaves, found 7`},
		{map[string]string{"vocab.txt": tinyVocab, "added_tokens.json": `{"x":6,"y":6}`}, `added_tokens.json: expected an id of its own for each token, found one twice`},
		{map[string]string{"vocab.txt": tinyVocab, "added_tokens.json": `["x"]`}, `added_tokens.json: expected tokens with their ids: expected an object, found a list`},
		{map[string]string{"vocab.json": `{"a":0}`}, "vocab.json: expected merges.txt beside it"},
		{map[string]string{"vocab.json": `{"a":0}`, "merges.txt": "#version: 0.2\na b c\n"}, `merges.txt: line 2: expected two tokens with a space between, found "a b c"`},
		{map[string]string{"vocab.json": `{"a":0}`, "merges.txt": ""}, `vocab.json: expected the tokenizer of RoBERTa or GPT-2, found the class "" and the model type ""`},
		{map[string]string{"vocab.json": `{"a":-3,"<|endoftext|>":1}`, "merges.txt": ""}, `vocab.json: model.vocab["a"]: expected an id`},
		{map[string]string{"spiece.model": "\x0a\xff"}, "spiece.model: expected a SentencePiece model (protobuf)"},
		{map[string]string{"spiece.model": "\x0a\x03\x0a\x01a"}, `spiece.model: pieces: expected the end token "</s>", found none`},
		{map[string]string{"spiece.model": "\x0a\x03\x0a\x01a", "config.json": `{"model_type":"albert"}`}, `expected the tokenizer of T5, found the class "" and the model type "albert"`},
	} {
		_, err := Load(write(t, c.files))
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%v:\n got error %v\nexpected %s", c.files, err, c.say)
		}
	}
}

func TestVocabularyFiles(t *testing.T) {
	for _, c := range []struct {
		name         string
		files        map[string]string
		text, pair   string
		single, both []int32
		size         int
		pad          int32
	}{
		{"vocab.txt", map[string]string{"vocab.txt": tinyVocab}, "aB a", "[SEP]c", []int32{2, 4, 5, 4, 3}, []int32{2, 4, 5, 4, 3, 3, 1, 3}, 6, 0},
		{"cased, other special tokens", map[string]string{"vocab.txt": tinyVocab, "tokenizer_config.json": `{"do_lower_case":false,"cls_token":{"content":"a"},"pad_token":"[SEP]"}`},
			"B", "a", []int32{4, 1, 3}, []int32{4, 1, 3, 4, 3}, 6, 3},
		{"RoBERTa by its tokens", map[string]string{"vocab.json": `{"<s>":0,"<pad>":1,"</s>":2,"a":3,"b":4,"ab":5}`, "merges.txt": "a b\n"},
			"abb<pad>", "a", []int32{0, 5, 4, 1, 2}, []int32{0, 5, 4, 1, 2, 2, 3, 2}, 6, 1},
		{"GPT-2 by its model type", map[string]string{"vocab.json": `{"<|endoftext|>":9,"a":3,"b":4,"ab":5}`, "merges.txt": "#version: 0.2\na b\n", "config.json": `{"model_type":"gpt2"}`},
			"ab\r", "a", []int32{5}, []int32{5, 3}, 10, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := Load(write(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.Encode(c.text, nil, 0).IDs; !slices.Equal(got, c.single) {
				t.Errorf("got %v, expected %v", got, c.single)
			}
			if got := tok.Encode(c.text, &c.pair, 0).IDs; !slices.Equal(got, c.both) {
				t.Errorf("pair: got %v, expected %v", got, c.both)
			}
			if tok.VocabSize() != c.size || tok.PadID() != c.pad {
				t.Errorf("got %d ids and pad %d, expected %d and %d", tok.VocabSize(), tok.PadID(), c.size, c.pad)
			}
		})
	}
}

func TestEncodeConcurrently(t *testing.T) {
	for name := range readGoldens(t).Tokenizers {
		if _, err := os.Stat(filepath.Join("testdata", name)); err != nil {
			continue
		}
		tok := open(t, name, nil)
		texts := sentences()[:200]
		want := make([]Encoding, len(texts))
		for i, s := range texts {
			want[i] = tok.Encode(s, &texts[(i+1)%200], 50)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i, s := range texts {
					if got := tok.Encode(s, &texts[(i+1)%200], 50); !slices.Equal(got.IDs, want[i].IDs) || !slices.Equal(got.Types, want[i].Types) {
						t.Errorf("%s: sentence %d differs beside other goroutines", name, i)
					}
				}
			})
		}
		wg.Wait()
	}
}

// The pair keeps as many tokens as fit, and the shorter text gives way only to
// half of them.
func TestLongestFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, m := rapid.IntRange(0, 50).Draw(t, "n"), rapid.IntRange(0, 50).Draw(t, "m")
		room := rapid.IntRange(0, 110).Draw(t, "room")
		a, b := longestFirst(n, m, room)
		if a+b != min(n+m, room) || a > n || b > m || min(a, b) < min(n, m, room/2) {
			t.Fatalf("%d and %d in %d became %d and %d", n, m, room, a, b)
		}
	})
}

func TestTruncateBelowSpecialTokens(t *testing.T) {
	tok := open(t, "wordpiece", nil)
	if got := tok.Encode("a film", nil, 1).IDs; !slices.Equal(got, []int32{2, 3}) {
		t.Errorf("got %v, expected the two special tokens", got)
	}
}

// A long text without spaces must not take quadratic time.
func TestLongWord(t *testing.T) {
	for _, name := range []string{"wordpiece", "bpe", "unigram", "bytefallback"} {
		tok := open(t, name, nil)
		if n := len(tok.Encode(strings.Repeat("ab", 1<<17), nil, 0).IDs); n == 0 {
			t.Errorf("%s: no tokens", name)
		}
	}
}

// exercise encodes and decodes with a tokenizer that was read from hostile
// files.
func exercise(tok *tokenizer) {
	pair := "Ünï\xffcode <s> [SEP] 12"
	for _, text := range []string{"", "a film, isn't it?  \t\n", "naïve 東京 \u0301\u200b 🎬"} {
		ids := tok.Encode(text, &pair, 20).IDs
		tok.Decode(ids)
		tok.Encode(text, nil, 0)
	}
}

func FuzzTokenizerJSON(f *testing.F) {
	for _, name := range []string{"wordpiece", "bpe", "unigram", "bytefallback", "parts"} {
		data, err := os.ReadFile(filepath.Join("testdata", name, "tokenizer.json"))
		if err != nil {
			f.Fatal(err)
		}
		// The pipeline with a vocabulary of a few tokens, so that mutations hit parts.
		var file map[string]any
		if err := json.Unmarshal(data, &file); err != nil {
			f.Fatal(err)
		}
		model := file["model"].(map[string]any)
		switch v := model["vocab"].(type) {
		case map[string]any:
			maps.DeleteFunc(v, func(_ string, id any) bool { return id.(float64) > 6 })
		case []any:
			model["vocab"] = v[:6]
		}
		if _, ok := model["merges"]; ok {
			model["merges"] = []any{}
		}
		small, err := json.Marshal(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(small)
	}
	f.Add([]byte(`{"normalizer":{"type":"Precompiled","precompiled_charsmap":"CAAAAAABAAAAAAAAYQA="},"model":{"vocab":[["a",-1]]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if tok, err := parseTokenizer(data, &config{}); err == nil {
			exercise(tok)
		}
	})
}

func FuzzVocabularies(f *testing.F) {
	f.Add([]byte(tinyVocab))
	f.Add([]byte(`{"<s>":0,"</s>":2,"a":3,"b":4,"ab":5}`))
	f.Add([]byte("#version: 0.2\na b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &config{dir: t.TempDir()}
		if tok, err := loadWordPiece(c, data); err == nil {
			exercise(tok)
		}
		_, _ = loadBPE(c, data)
		if merges, err := parseMergeLines(data); err == nil {
			vocab := map[string]int32{}
			for _, m := range merges {
				for _, s := range []string{m[0], m[1], m[0] + m[1]} {
					vocab[s] = int32(len(vocab))
				}
			}
			if _, err := newBPE(vocab, merges, bpeOptions{unk: -1}); err != nil {
				t.Errorf("merges of a complete vocabulary: %v", err)
			}
		}
	})
}

func FuzzSpiece(f *testing.F) {
	piece := func(s string, kind uint64) []byte {
		b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), s)
		b = protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), 0xBF800000)
		return protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), kind)
	}
	var model []byte
	for i, s := range []string{"<unk>", "</s>", "▁a", "b", "▁"} {
		model = protowire.AppendBytes(protowire.AppendTag(model, 1, protowire.BytesType), piece(s, uint64(max(1, 3-i))))
	}
	chars := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte("\x08\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00a\x00"))
	model = protowire.AppendBytes(protowire.AppendTag(model, 3, protowire.BytesType), chars)
	f.Add(model)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseSpiece(data)
		if err != nil {
			return
		}
		if tok, err := newT5(m, "<pad>", "</s>", 3, &config{}); err == nil {
			exercise(tok)
		}
	})
}
