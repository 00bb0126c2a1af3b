package tokenize

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxID bounds ids: no vocabulary is near it, and tables are sized by ids.
const maxID = 1 << 24

// tokenizerFile is the layout of tokenizer.json. Its truncation and padding are
// not applied: Encode's maxLen decides, and nothing is padded; only the side of
// truncation is kept.
type tokenizerFile struct {
	Truncation *struct{ Direction string } `json:"truncation"`
	Padding    *struct {
		PadID int32 `json:"pad_id"`
	} `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// parseTokenizer reads a tokenizer.json. Errors name the key.
func parseTokenizer(data []byte) (*tokenizer, error) {
	var f tokenizerFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("expected the JSON of a tokenizer: %w", err)
	}
	t := &tokenizer{pad: -1}
	if f.Truncation != nil {
		t.truncateLeft = f.Truncation.Direction == "Left"
	}
	var vocab map[string]int32
	var err error
	if t.normalizers, err = parseNormalizer(f.Normalizer, "normalizer"); err != nil {
		return nil, err
	}
	if t.preTokenizers, err = parsePreTokenizer(f.PreTokenizer, "pre_tokenizer"); err != nil {
		return nil, err
	}
	if t.decoders, err = parseDecoder(f.Decoder, "decoder"); err != nil {
		return nil, err
	}
	if t.model, vocab, err = parseModel(f.Model); err != nil {
		return nil, err
	}
	if t.single, t.pair, err = parsePostProcessor(f.PostProcessor, "post_processor"); err != nil {
		return nil, err
	}
	if err := t.setVocab(vocab, f.AddedTokens); err != nil {
		return nil, err
	}
	if f.Padding != nil {
		t.pad = f.Padding.PadID
	}
	return t, t.check()
}

// setVocab fills the id tables and the tables of added tokens.
func (t *tokenizer) setVocab(vocab map[string]int32, added []addedToken) error {
	t.tokens = make(map[int32]string, len(vocab))
	t.special = map[int32]bool{}
	for s, id := range vocab {
		t.tokens[id] = s
		t.size = max(t.size, int(id)+1)
	}
	for i, a := range added {
		if a.ID < 0 || a.ID >= maxID {
			return fmt.Errorf("added_tokens[%d].id: expected an id from 0 to %d, found %d", i, maxID-1, a.ID)
		}
		if !utf8.ValidString(a.Content) {
			return fmt.Errorf("added_tokens[%d].content: expected UTF-8, found %q", i, a.Content)
		}
		t.size = max(t.size, int(a.ID)+1)
		if a.Special {
			t.special[a.ID] = true
		}
		to, content := &t.raw, a.Content
		if a.Normalized {
			b := []byte(content)
			for _, n := range t.normalizers {
				b = n.normalize(nil, b)
			}
			to, content = &t.added, string(b)
		}
		t.tokens[a.ID] = content
		if err := to.add(a, content); err != nil {
			return err
		}
	}
	return nil
}

// checkIDs says whether the ids of a vocabulary are fit for one.
func checkIDs(vocab map[string]int32) error {
	for s, id := range vocab {
		if id < 0 || id >= maxID {
			return fmt.Errorf("model.vocab[%q]: expected an id from 0 to %d, found %d", s, maxID-1, id)
		}
	}
	return nil
}

// check makes sure that the special tokens of the templates exist.
func (t *tokenizer) check() error {
	for _, tmpl := range []template{t.single, t.pair} {
		for _, s := range tmpl {
			if _, ok := t.tokens[s.id]; s.part == 0 && !ok {
				return fmt.Errorf("post_processor: expected ids of the vocabulary, found %d", s.id)
			}
		}
	}
	if _, ok := t.tokens[t.pad]; t.pad != -1 && !ok {
		return fmt.Errorf("padding.pad_id: expected an id of the vocabulary, found %d", t.pad)
	}
	return nil
}

// component reads the "type" of a part of the pipeline; "" when it is null.
func component(raw json.RawMessage, key string) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var c struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", fmt.Errorf("%s: expected an object with a type: %w", key, err)
	}
	if c.Type == nil || *c.Type == "" {
		return "", fmt.Errorf("%s.type: expected the name of a component, found none", key)
	}
	return *c.Type, nil
}

// fields reads the options of a component into v, which lists them all: one
// that is not listed would be ignored, so it is an error.
func fields(raw json.RawMessage, key string, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: expected the options of this component: %w", key, err)
	}
	return nil
}

func unknown(key, found string, known ...string) error {
	sort.Strings(known)
	return fmt.Errorf("%s.type: expected one of %s, found %q", key, strings.Join(known, ", "), found)
}

func parseNormalizer(raw json.RawMessage, key string) ([]normalizer, error) {
	kind, err := component(raw, key)
	if err != nil || kind == "" {
		return nil, err
	}
	var one normalizer
	switch kind {
	case "Sequence":
		var o struct {
			Type        string
			Normalizers []json.RawMessage
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		var all []normalizer
		for i, r := range o.Normalizers {
			n, err := parseNormalizer(r, fmt.Sprintf("%s.normalizers[%d]", key, i))
			if err != nil {
				return nil, err
			}
			all = append(all, n...)
		}
		return all, nil
	case "BertNormalizer":
		o := struct {
			Type         string
			CleanText    bool  `json:"clean_text"`
			Ideographs   bool  `json:"handle_chinese_chars"`
			StripAccents *bool `json:"strip_accents"`
			Lowercase    bool
		}{CleanText: true, Ideographs: true, Lowercase: true}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		strip := o.Lowercase
		if o.StripAccents != nil {
			strip = *o.StripAccents
		}
		one = bertNormalizer{o.CleanText, o.Ideographs, strip, o.Lowercase}
	case "NFC":
		one = normalForm{norm.NFC}
	case "NFD":
		one = normalForm{norm.NFD}
	case "NFKC":
		one = normalForm{norm.NFKC}
	case "NFKD":
		one = normalForm{norm.NFKD}
	case "Lowercase":
		one = lowercase{}
	case "StripAccents":
		one = stripAccents{}
	case "Strip":
		var o struct {
			Type  string
			Left  bool `json:"strip_left"`
			Right bool `json:"strip_right"`
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		one = strip{o.Left, o.Right}
	case "Prepend":
		var o struct{ Type, Prepend string }
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		one = prepend{o.Prepend}
	case "Replace":
		if one, err = parseReplace(raw, key); err != nil {
			return nil, err
		}
	case "Precompiled":
		var o struct {
			Type string
			Map  string `json:"precompiled_charsmap"`
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		blob, err := base64.StdEncoding.DecodeString(o.Map)
		if err != nil {
			return nil, fmt.Errorf("%s.precompiled_charsmap: expected base64: %w", key, err)
		}
		if one, err = newCharsMap(blob); err != nil {
			return nil, fmt.Errorf("%s.precompiled_charsmap: %w", key, err)
		}
	default:
		return nil, unknown(key, kind, "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD",
			"Precompiled", "Prepend", "Replace", "Sequence", "Strip", "StripAccents")
	}
	return []normalizer{one}, nil
}

// pattern is {"String": …} or {"Regex": …}.
type pattern struct{ String, Regex *string }

func (p pattern) matcher(key string) (matcher, error) {
	switch {
	case p.String != nil && p.Regex == nil:
		return matchString(*p.String), nil
	case p.Regex != nil && p.String == nil:
		m, err := matchRegexp(*p.Regex)
		if err != nil {
			return nil, fmt.Errorf("%s.pattern.Regex: %w", key, err)
		}
		return m, nil
	}
	return nil, fmt.Errorf("%s.pattern: expected either String or Regex", key)
}

func parseReplace(raw json.RawMessage, key string) (replace, error) {
	var o struct {
		Type    string
		Pattern pattern
		Content string
	}
	if err := fields(raw, key, &o); err != nil {
		return replace{}, err
	}
	find, err := o.Pattern.matcher(key)
	return replace{find, o.Content}, err
}

func parsePreTokenizer(raw json.RawMessage, key string) ([]preTokenizer, error) {
	kind, err := component(raw, key)
	if err != nil || kind == "" {
		return nil, err
	}
	var one preTokenizer
	switch kind {
	case "Sequence":
		var o struct {
			Type          string
			Pretokenizers []json.RawMessage
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		var all []preTokenizer
		for i, r := range o.Pretokenizers {
			p, err := parsePreTokenizer(r, fmt.Sprintf("%s.pretokenizers[%d]", key, i))
			if err != nil {
				return nil, err
			}
			for _, p := range p {
				if m, ok := p.(metaspace); ok && m.prepend == "first" && len(all) > 0 {
					return nil, fmt.Errorf(`%s.pretokenizers[%d].prepend_scheme: expected "always" or "never" behind another pre-tokenizer, found "first"`, key, i)
				}
			}
			all = append(all, p...)
		}
		return all, nil
	case "BertPreTokenizer":
		one = bertPreTokenizer{}
	case "Whitespace":
		one = whitespace{}
	case "WhitespaceSplit":
		one = splitter{matchRunes(isSpace, false), "Removed", false}
	case "ByteLevel":
		o := struct {
			Type        string
			PrefixSpace bool `json:"add_prefix_space"`
			TrimOffsets bool `json:"trim_offsets"`
			UseRegex    bool `json:"use_regex"`
		}{PrefixSpace: true, UseRegex: true}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		one = byteLevel{o.PrefixSpace, o.UseRegex}
	case "Metaspace":
		m, err := parseMetaspace(raw, key)
		if err != nil {
			return nil, err
		}
		one = m
	case "Punctuation":
		o := struct{ Type, Behavior string }{Behavior: "Isolated"}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		if err := knownBehaviour(o.Behavior, key); err != nil {
			return nil, err
		}
		one = splitter{matchRunes(isPunctuation, false), o.Behavior, false}
	case "Digits":
		var o struct {
			Type       string
			Individual bool `json:"individual_digits"`
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		behaviour := "Contiguous"
		if o.Individual {
			behaviour = "Isolated"
		}
		one = splitter{matchRunes(isNumeric, false), behaviour, false}
	case "Split":
		var o struct {
			Type     string
			Pattern  pattern
			Behavior string
			Invert   bool
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		if err := knownBehaviour(o.Behavior, key); err != nil {
			return nil, err
		}
		find, err := o.Pattern.matcher(key)
		if err != nil {
			return nil, err
		}
		one = splitter{find, o.Behavior, o.Invert}
	default:
		return nil, unknown(key, kind, "BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation",
			"Sequence", "Split", "Whitespace", "WhitespaceSplit")
	}
	return []preTokenizer{one}, nil
}

func knownBehaviour(found, key string) error {
	if slices.Contains(behaviours, found) {
		return nil
	}
	return fmt.Errorf("%s.behavior: expected one of %s, found %q", key, strings.Join(behaviours, ", "), found)
}

// parseMetaspace reads the pre-tokenizer and decoder of this name, in the
// present form and in the older one with add_prefix_space.
func parseMetaspace(raw json.RawMessage, key string) (metaspace, error) {
	o := struct {
		Type        string
		Replacement string
		Prepend     string `json:"prepend_scheme"`
		Split       *bool
		PrefixSpace *bool  `json:"add_prefix_space"`
		StrRep      string `json:"str_rep"`
	}{Replacement: "▁", Prepend: "always"}
	if err := fields(raw, key, &o); err != nil {
		return metaspace{}, err
	}
	if o.PrefixSpace != nil && !*o.PrefixSpace {
		o.Prepend = "never"
	}
	if !slices.Contains([]string{"always", "first", "never"}, o.Prepend) {
		return metaspace{}, fmt.Errorf("%s.prepend_scheme: expected always, first or never, found %q", key, o.Prepend)
	}
	if utf8.RuneCountInString(o.Replacement) != 1 {
		return metaspace{}, fmt.Errorf("%s.replacement: expected one character, found %q", key, o.Replacement)
	}
	return metaspace{o.Replacement, o.Prepend, o.Split == nil || *o.Split}, nil
}

func parsePostProcessor(raw json.RawMessage, key string) (single, pair template, err error) {
	single = template{{part: 1}}
	pair = template{{part: 1}, {part: 2, kind: 1}}
	kind, err := component(raw, key)
	if err != nil || kind == "" {
		return single, pair, err
	}
	switch kind {
	case "ByteLevel": // changes offsets only, which we do not keep
		return single, pair, nil
	case "Sequence":
		var o struct {
			Type       string
			Processors []json.RawMessage
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, nil, err
		}
		seen := false
		for i, r := range o.Processors {
			key := fmt.Sprintf("%s.processors[%d]", key, i)
			kind, err := component(r, key)
			if err != nil {
				return nil, nil, err
			}
			if kind == "ByteLevel" {
				continue
			}
			if seen {
				return nil, nil, fmt.Errorf("%s: expected one component that adds special tokens, found a second, %s", key, kind)
			}
			seen = true
			if single, pair, err = parsePostProcessor(r, key); err != nil {
				return nil, nil, err
			}
		}
		return single, pair, nil
	case "BertProcessing", "RobertaProcessing":
		var o struct {
			Type        string
			Sep, Cls    special
			TrimOffsets bool `json:"trim_offsets"`
			PrefixSpace bool `json:"add_prefix_space"`
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, nil, err
		}
		single, pair = bertTemplates(o.Cls.id, o.Sep.id)
		if kind == "RobertaProcessing" {
			single, pair = robertaTemplates(o.Cls.id, o.Sep.id)
		}
		return single, pair, nil
	case "TemplateProcessing":
		var o struct {
			Type         string
			Single, Pair []templateItem
			Special      map[string]struct {
				ID     string
				IDs    []int32
				Tokens []string
			} `json:"special_tokens"`
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, nil, err
		}
		ids := func(token string) []int32 { return o.Special[token].IDs }
		if single, err = newTemplate(o.Single, ids, 1); err != nil {
			return nil, nil, fmt.Errorf("%s.single: %w", key, err)
		}
		if pair, err = newTemplate(o.Pair, ids, 2); err != nil {
			return nil, nil, fmt.Errorf("%s.pair: %w", key, err)
		}
		return single, pair, nil
	}
	return nil, nil, unknown(key, kind, "BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing")
}

// special is ["[SEP]", 102].
type special struct {
	token string
	id    int32
}

func (s *special) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("expected a token and its id, found %s", b)
	}
	if err := json.Unmarshal(parts[0], &s.token); err != nil {
		return err
	}
	return json.Unmarshal(parts[1], &s.id)
}

// bertTemplates are [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
func bertTemplates(cls, sep int32) (single, pair template) {
	single = template{{id: cls}, {part: 1}, {id: sep}}
	return single, append(slices.Clone(single), slot{part: 2, kind: 1}, slot{id: sep, kind: 1})
}

// robertaTemplates are <s> A </s> and <s> A </s></s> B </s>.
func robertaTemplates(cls, sep int32) (single, pair template) {
	single = template{{id: cls}, {part: 1}, {id: sep}}
	return single, append(slices.Clone(single), slot{id: sep}, slot{part: 2}, slot{id: sep})
}

type templateItem struct {
	SpecialToken, Sequence *struct {
		ID     string `json:"id"`
		TypeID int32  `json:"type_id"`
	}
}

func newTemplate(items []templateItem, ids func(string) []int32, texts int) (template, error) {
	var t template
	for i, item := range items {
		switch {
		case item.Sequence != nil && item.SpecialToken == nil:
			part := map[string]int{"A": 1, "B": 2}[item.Sequence.ID]
			if part == 0 || part > texts {
				return nil, fmt.Errorf("expected the text A, or B in a pair, found %q", item.Sequence.ID)
			}
			t = append(t, slot{part: part, kind: item.Sequence.TypeID})
		case item.SpecialToken != nil && item.Sequence == nil:
			found := ids(item.SpecialToken.ID)
			if len(found) == 0 {
				return nil, fmt.Errorf("expected tokens that special_tokens lists, found %q", item.SpecialToken.ID)
			}
			for _, id := range found {
				t = append(t, slot{id: id, kind: item.SpecialToken.TypeID})
			}
		default:
			return nil, fmt.Errorf("item %d: expected a SpecialToken or a Sequence", i)
		}
	}
	for part := 1; part <= texts; part++ {
		if !t.has(part) {
			return nil, fmt.Errorf("expected each text once, found another template")
		}
	}
	return t, nil
}

func parseDecoder(raw json.RawMessage, key string) ([]decoder, error) {
	kind, err := component(raw, key)
	if err != nil || kind == "" {
		return nil, err
	}
	var one decoder
	switch kind {
	case "Sequence":
		var o struct {
			Type     string
			Decoders []json.RawMessage
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		var all []decoder
		for i, r := range o.Decoders {
			d, err := parseDecoder(r, fmt.Sprintf("%s.decoders[%d]", key, i))
			if err != nil {
				return nil, err
			}
			all = append(all, d...)
		}
		return all, nil
	case "WordPiece":
		o := struct {
			Type, Prefix string
			Cleanup      bool
		}{Prefix: "##", Cleanup: true}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		one = decodeWordPiece(o.Prefix, o.Cleanup)
	case "ByteLevel":
		one = decodeByteLevel
	case "Metaspace":
		m, err := parseMetaspace(raw, key)
		if err != nil {
			return nil, err
		}
		one = decodeMetaspace(m.replacement, m.prepend)
	case "Replace":
		r, err := parseReplace(raw, key)
		if err != nil {
			return nil, err
		}
		one = decodeReplace(r)
	case "Fuse":
		one = decodeFuse
	case "ByteFallback":
		one = decodeBytes
	case "Strip":
		var o struct {
			Type, Content string
			Start, Stop   int
		}
		if err := fields(raw, key, &o); err != nil {
			return nil, err
		}
		if o.Content == "" {
			return nil, fmt.Errorf("%s.content: expected a character, found none", key)
		}
		one = decodeStrip(o.Content, o.Start, o.Stop)
	default:
		return nil, unknown(key, kind, "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip", "WordPiece")
	}
	return []decoder{one}, nil
}

// parseModel reads the vocabulary. Older files leave the model's type out: then
// its other keys tell.
func parseModel(raw json.RawMessage) (model, map[string]int32, error) {
	var m struct {
		Type   *string
		Vocab  json.RawMessage
		Merges json.RawMessage

		Unk      *string `json:"unk_token"`
		Prefix   *string `json:"continuing_subword_prefix"`
		MaxRunes *int    `json:"max_input_chars_per_word"`

		Dropout      *float64
		Suffix       *string `json:"end_of_word_suffix"`
		FuseUnk      bool    `json:"fuse_unk"`
		ByteFallback bool    `json:"byte_fallback"`
		IgnoreMerges bool    `json:"ignore_merges"`

		UnkID *int32 `json:"unk_id"`
	}
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil, fmt.Errorf("model: expected a model, found none")
	}
	if err := fields(raw, "model", &m); err != nil {
		return nil, nil, err
	}
	kind := "WordPiece"
	switch {
	case m.Type != nil:
		kind = *m.Type
	case m.Merges != nil:
		kind = "BPE"
	case bytes.HasPrefix(bytes.TrimSpace(m.Vocab), []byte("[")):
		kind = "Unigram"
	}
	var vocab map[string]int32
	switch kind {
	case "WordPiece", "BPE":
		if err := json.Unmarshal(m.Vocab, &vocab); err != nil || len(vocab) == 0 {
			return nil, nil, fmt.Errorf("model.vocab: expected tokens with their ids, found none or others (%v)", err)
		}
		if err := checkIDs(vocab); err != nil {
			return nil, nil, err
		}
	case "Unigram":
		list, err := parseScored(m.Vocab)
		if err != nil {
			return nil, nil, err
		}
		unk := int32(-1)
		if m.UnkID != nil {
			if unk = *m.UnkID; unk < 0 || int(unk) >= len(list) {
				return nil, nil, fmt.Errorf("model.unk_id: expected an id below %d, found %d", len(list), unk)
			}
		}
		vocab = make(map[string]int32, len(list))
		for i, v := range list {
			vocab[v.token] = int32(i)
		}
		u, err := newUnigram(list, unk, m.ByteFallback)
		if err != nil {
			return nil, nil, fmt.Errorf("model.%w", err)
		}
		return u, vocab, nil
	default:
		return nil, nil, unknown("model", kind, "BPE", "Unigram", "WordPiece")
	}
	unk := int32(-1)
	if m.Unk != nil {
		id, ok := vocab[*m.Unk]
		if !ok {
			return nil, nil, fmt.Errorf("model.unk_token: expected a token of the vocabulary, found %q", *m.Unk)
		}
		unk = id
	}
	if kind == "WordPiece" {
		prefix, maxRunes := "##", 100
		if m.Prefix != nil {
			prefix = *m.Prefix
		}
		if m.MaxRunes != nil {
			maxRunes = *m.MaxRunes
		}
		if unk < 0 {
			return nil, nil, fmt.Errorf("model.unk_token: expected a token of the vocabulary, found none")
		}
		w, err := newWordPiece(vocab, unk, prefix, maxRunes)
		return w, vocab, err
	}
	for key, v := range map[string]*string{"continuing_subword_prefix": m.Prefix, "end_of_word_suffix": m.Suffix} {
		if v != nil && *v != "" {
			return nil, nil, fmt.Errorf("model.%s: expected none (not implemented for BPE), found %q", key, *v)
		}
	}
	if m.Dropout != nil && *m.Dropout != 0 {
		return nil, nil, fmt.Errorf("model.dropout: expected none (not implemented), found %v", *m.Dropout)
	}
	merges, err := parseMerges(m.Merges)
	if err != nil {
		return nil, nil, err
	}
	b, err := newBPE(vocab, merges, bpeOptions{unk, m.FuseUnk, m.ByteFallback, m.IgnoreMerges})
	if err != nil {
		return nil, nil, fmt.Errorf("model.merges: %w", err)
	}
	return b, vocab, nil
}

// parseScored reads [["token", score], …].
func parseScored(raw json.RawMessage) ([]scored, error) {
	var rows [][]any
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows) == 0 {
		return nil, errors.New("model.vocab: expected a list of tokens with their scores, found none")
	}
	list := make([]scored, len(rows))
	for i, row := range rows {
		var ok, ok2 bool
		if len(row) == 2 {
			list[i].token, ok = row[0].(string)
			list[i].score, ok2 = row[1].(float64)
		}
		if !ok || !ok2 {
			return nil, fmt.Errorf("model.vocab[%d]: expected a token and its score, found %v", i, row)
		}
	}
	return list, nil
}

// parseMerges reads ["a b", …] or [["a", "b"], …].
func parseMerges(raw json.RawMessage) ([][2]string, error) {
	var lines []string
	if json.Unmarshal(raw, &lines) == nil {
		merges := make([][2]string, len(lines))
		for i, l := range lines {
			parts := strings.Split(l, " ")
			if len(parts) != 2 {
				return nil, fmt.Errorf("model.merges[%d]: expected two tokens with a space between, found %q", i, l)
			}
			merges[i] = [2]string(parts)
		}
		return merges, nil
	}
	var pairs [][]string
	if err := json.Unmarshal(raw, &pairs); err != nil {
		return nil, fmt.Errorf("model.merges: expected pairs of tokens: %w", err)
	}
	merges := make([][2]string, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return nil, fmt.Errorf("model.merges[%d]: expected two tokens, found %q", i, p)
		}
		merges[i] = [2]string(p)
	}
	return merges, nil
}
