package tokenize

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// GGUF is what a GGUF file says of its tokenizer: each field is the value of the
// metadata key tokenizer.ggml.… that its comment names. An id is -1, and a flag
// nil, where the file has no such key.
type GGUF struct {
	Model  string    // model: gpt2 (byte-level BPE) or llama (SentencePiece's BPE)
	Pre    string    // pre: how gpt2's texts are split
	Tokens []string  // tokens, by id
	Scores []float32 // scores, one a token; llama only
	Types  []int32   // token_type, one a token: 1 normal … 6 byte
	Merges []string  // merges, "a b" by rank; gpt2 only

	BOS, EOS, Unknown, Pad int32 // bos_token_id, eos_token_id, unknown_token_id, padding_token_id

	AddBOS, AddEOS *bool // add_bos_token, add_eos_token
	SpacePrefix    *bool // add_space_prefix
}

// The values of token_type that count here.
const (
	ggufNormal      = 1
	ggufControl     = 3 // an added token that Decode leaves out
	ggufUserDefined = 4 // an added token
)

// The patterns of today's decoders.
const (
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwenPattern   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// ggufPre is what a value of tokenizer.ggml.pre means: the pieces that the
// models' tokenizer.json spells out and llama.cpp knows by name.
type ggufPre struct {
	nfc     bool   // the text is normalized to NFC
	digits  bool   // each digit is a piece
	pattern string // "": gpt2Pattern
	whole   bool   // a piece that is a token is not taken apart …
	bos     bool   // … and bos goes first unless add_bos_token says otherwise
}

var ggufPres = map[string]ggufPre{
	"gpt-2":     {},
	"olmo":      {},
	"smollm":    {digits: true},
	"llama-bpe": {pattern: llama3Pattern, whole: true, bos: true},
	"llama3":    {pattern: llama3Pattern, whole: true, bos: true},
	"llama-v3":  {pattern: llama3Pattern, whole: true, bos: true},
	"dbrx":      {pattern: llama3Pattern}, // OLMo 2 and Phi-4 as well
	"smaug-bpe": {pattern: llama3Pattern},
	"qwen2":     {nfc: true, pattern: qwenPattern},
}

// FromGGUF is the tokenizer that a GGUF file describes, with the ids of the
// tokenizer.json that it was converted from, but for white space that added
// tokens took with them: the format does not keep that. Errors name the key.
func FromGGUF(g GGUF) (Tokenizer, error) {
	if len(g.Tokens) == 0 || len(g.Tokens) > maxID {
		return nil, fmt.Errorf("tokenizer.ggml.tokens: expected 1 to %d tokens, found %d", maxID, len(g.Tokens))
	}
	if len(g.Types) != 0 && len(g.Types) != len(g.Tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.token_type: expected %d, one a token, found %d", len(g.Tokens), len(g.Types))
	}
	for key, id := range map[string]int32{"bos": g.BOS, "eos": g.EOS, "unknown": g.Unknown, "padding": g.Pad} {
		if id < -1 || int(id) >= len(g.Tokens) {
			return nil, fmt.Errorf("tokenizer.ggml.%s_token_id: expected an id below %d, found %d", key, len(g.Tokens), id)
		}
	}
	prefix := g.Model == "llama" && (g.SpacePrefix == nil || *g.SpacePrefix)
	vocab := make(map[string]int32, len(g.Tokens))
	var added []addedToken
	for id, s := range g.Tokens {
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("tokenizer.ggml.tokens[%d]: expected UTF-8, found %q", id, s)
		}
		vocab[s] = int32(id)
		if len(g.Types) == 0 {
			continue
		}
		switch g.Types[id] {
		case ggufControl:
			added = append(added, addedToken{ID: int32(id), Content: s, Special: true})
		case ggufUserDefined: // runs of spaces, for one: '▁' may stand for some of them
			added = append(added, addedToken{ID: int32(id), Content: s, Normalized: !prefix})
		}
	}
	t := &tokenizer{pad: g.Pad}
	var bos bool
	var err error
	switch g.Model {
	case "gpt2":
		bos, err = t.ggufByteLevel(g, vocab)
	case "llama":
		bos, err = true, t.ggufSentencePiece(g, vocab, prefix)
	default:
		err = fmt.Errorf("tokenizer.ggml.model: expected gpt2 or llama, found %q", g.Model)
	}
	if err != nil {
		return nil, err
	}
	if t.templates, err = g.templates(bos); err != nil {
		return nil, err
	}
	return t, t.setVocab(vocab, added)
}

// ggufByteLevel makes t a byte-level BPE tokenizer and says whether bos goes
// first by default.
func (t *tokenizer) ggufByteLevel(g GGUF, vocab map[string]int32) (bos bool, err error) {
	pre, ok := ggufPres[g.Pre]
	if !ok {
		names := slices.Sorted(maps.Keys(ggufPres))
		return false, fmt.Errorf("tokenizer.ggml.pre: expected one of %s, found %q", strings.Join(names, ", "), g.Pre)
	}
	merges := make([][2]string, len(g.Merges))
	for i, m := range g.Merges {
		a, b, ok := strings.Cut(m, " ")
		if !ok {
			return false, fmt.Errorf("tokenizer.ggml.merges[%d]: expected two tokens with a space between, found %q", i, m)
		}
		merges[i] = [2]string{a, b}
	}
	if t.model, err = newBPE(vocab, merges, bpeOptions{unk: -1, wholeWords: pre.whole}); err != nil {
		return false, fmt.Errorf("tokenizer.ggml.merges: %w", err)
	}
	if pre.nfc {
		t.normalizers = []normalizer{normalForm{norm.NFC}}
	}
	if pre.digits {
		t.preTokenizers = append(t.preTokenizers, splitter{matchRunes(isNumeric, false), "Isolated", false})
	}
	if pre.pattern != "" {
		r, err := compileRegex(pre.pattern)
		if err != nil {
			return false, err
		}
		t.preTokenizers = append(t.preTokenizers, splitter{r.find, "Isolated", false})
	}
	t.preTokenizers = append(t.preTokenizers, byteLevel{
		prefixSpace: g.SpacePrefix != nil && *g.SpacePrefix, pattern: pre.pattern == ""})
	t.decoders = []decoder{decodeByteLevel}
	return pre.bos, nil
}

// ggufSentencePiece makes t a BPE tokenizer of characters, with '▁' for spaces
// and bytes for what the vocabulary lacks; prefix puts one before each part of a
// text that added tokens leave.
func (t *tokenizer) ggufSentencePiece(g GGUF, vocab map[string]int32, prefix bool) error {
	if len(g.Scores) != len(g.Tokens) {
		return fmt.Errorf("tokenizer.ggml.scores: expected %d, one a token, found %d", len(g.Tokens), len(g.Scores))
	}
	m, err := newBPE(vocab, scoredMerges(g, vocab), bpeOptions{unk: g.Unknown, fuseUnk: true, byteFallback: true})
	if err != nil {
		return err
	}
	t.model = m
	t.normalizers = []normalizer{replace{matchString(" "), "▁"}}
	t.decoders = []decoder{decodeReplace(replace{matchString("▁"), " "}), decodeBytes, decodeFuse}
	if prefix {
		t.normalizers = append([]normalizer{prepend{"▁"}}, t.normalizers...)
		t.decoders = append(t.decoders, decodeStrip(" ", 1, 0))
	}
	return nil
}

// scoredMerges are the merges of a SentencePiece vocabulary: every way to join
// two of its tokens to a normal one, by the score of what they make, and among
// equals the longer parts first, as transformers orders them.
func scoredMerges(g GGUF, vocab map[string]int32) [][2]string {
	type ranked struct {
		parts       [2]string
		left, right int // characters of the parts
		score       float32
	}
	var all []ranked
	for id, s := range g.Tokens {
		if len(g.Types) > 0 && g.Types[id] != ggufNormal {
			continue
		}
		length, left := utf8.RuneCountInString(s), 0
		for at := range s {
			_, ok := vocab[s[:at]]
			_, ok2 := vocab[s[at:]]
			if at > 0 && ok && ok2 {
				all = append(all, ranked{[2]string{s[:at], s[at:]}, left, length - left, g.Scores[id]})
			}
			left++
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.left, a.left), cmp.Compare(b.right, a.right))
	})
	merges := make([][2]string, len(all))
	for i, m := range all {
		merges[i] = m.parts
	}
	return merges
}

// templates put bos before each text and eos behind, where the file says so.
func (g GGUF) templates(bos bool) (templates, error) {
	around := func(kind int32) (template, error) {
		part := template{{part: int(kind) + 1, kind: kind}}
		if g.AddBOS != nil && *g.AddBOS || g.AddBOS == nil && bos {
			if g.BOS < 0 {
				return nil, fmt.Errorf("tokenizer.ggml.bos_token_id: expected an id, as add_bos_token asks for it, found none")
			}
			part = slices.Insert(part, 0, slot{id: g.BOS, kind: kind})
		}
		if g.AddEOS != nil && *g.AddEOS {
			if g.EOS < 0 {
				return nil, fmt.Errorf("tokenizer.ggml.eos_token_id: expected an id, as add_eos_token asks for it, found none")
			}
			part = append(part, slot{id: g.EOS, kind: kind})
		}
		return part, nil
	}
	single, err := around(0)
	if err != nil {
		return templates{}, err
	}
	second, err := around(1)
	return templates{single, slices.Concat(single, second)}, err
}
