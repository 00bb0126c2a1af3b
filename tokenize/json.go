package tokenize

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
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

// parseTokenizer reads a tokenizer.json, in which what is said beside it changes
// some parts and adds tokens. Errors name the key.
func parseTokenizer(data []byte, c *config) (*tokenizer, error) {
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
	if t.normalizers, err = normalizerKinds.parse(stage(f.Normalizer, "normalizer"), "normalizers"); err != nil {
		return nil, err
	}
	if t.preTokenizers, err = preTokenizerKinds.parse(stage(f.PreTokenizer, "pre_tokenizer"), "pretokenizers"); err != nil {
		return nil, err
	}
	if err := checkFirst(t.preTokenizers); err != nil {
		return nil, err
	}
	if t.decoders, err = decoderKinds.parse(stage(f.Decoder, "decoder"), "decoders"); err != nil {
		return nil, err
	}
	if t.model, vocab, err = parseModel(f.Model); err != nil {
		return nil, err
	}
	post, err := postProcessorKinds.parse(stage(f.PostProcessor, "post_processor"), "processors")
	if err != nil {
		return nil, err
	}
	if t.templates, err = oneTemplate(post); err != nil {
		return nil, err
	}
	c.override(t)
	added, err := c.complete(vocab, f.AddedTokens)
	if err != nil {
		return nil, err
	}
	if err := t.setVocab(vocab, added); err != nil {
		return nil, err
	}
	if f.Padding != nil {
		t.pad = f.Padding.PadID
	}
	return t, t.check()
}

// component is a part of the pipeline as tokenizer.json states it, and its key
// there.
type component struct {
	raw json.RawMessage
	key string
	// grown is how many times longer the replacements of its stage, up to here, can
	// make a text.
	grown *float64
}

// stage is one of the pipeline's four.
func stage(raw json.RawMessage, key string) component {
	grown := 1.0
	return component{raw, key, &grown}
}

// maxGrowth bounds what the replacements of a stage may make of a text, which else
// could fill the memory: those of published tokenizers make three bytes of one.
const maxGrowth = 256

// grows notes a replacement.
func (c component) grows(times float64) error {
	if *c.grown *= max(1, times); *c.grown > maxGrowth {
		return fmt.Errorf("%s: expected replacements that make a text at most %d times longer, found ones that make it %.3g times longer", c.key, maxGrowth, *c.grown)
	}
	return nil
}

// kind is the component's type; "" when it is null.
func (c component) kind() (string, error) {
	if len(c.raw) == 0 || string(c.raw) == "null" {
		return "", nil
	}
	var head struct{ Type *string }
	if err := json.Unmarshal(c.raw, &head); err != nil {
		return "", fmt.Errorf("%s: expected an object with a type: %w", c.key, err)
	}
	if head.Type == nil || *head.Type == "" {
		return "", fmt.Errorf("%s.type: expected the name of a component, found none", c.key)
	}
	return *head.Type, nil
}

// options reads the options of a component into v, which lists them all: one
// that is not listed would be ignored, so it is an error.
func (c component) options(v any) error {
	d := json.NewDecoder(bytes.NewReader(c.raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: expected the options of this component: %w", c.key, err)
	}
	return nil
}

// kinds are the constructors of one stage's components, by type.
type kinds[T any] map[string]func(component) (T, error)

// parse makes the component, or those of a Sequence in their order; list is the
// key that the stage's Sequence has them under.
func (k kinds[T]) parse(c component, list string) ([]T, error) {
	kind, err := c.kind()
	switch {
	case err != nil || kind == "":
		return nil, err
	case kind == "Sequence":
		var o map[string]json.RawMessage
		if err := c.options(&o); err != nil {
			return nil, err
		}
		for key := range o {
			if key != "type" && key != list {
				return nil, fmt.Errorf("%s: expected the keys type and %s, found %q", c.key, list, key)
			}
		}
		var members []json.RawMessage
		if err := json.Unmarshal(o[list], &members); err != nil {
			return nil, fmt.Errorf("%s.%s: expected a list of components: %w", c.key, list, err)
		}
		var all []T
		for i, raw := range members {
			some, err := k.parse(component{raw, fmt.Sprintf("%s.%s[%d]", c.key, list, i), c.grown}, list)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
		return all, nil
	case k[kind] == nil:
		return nil, unknown(c.key, kind, append(slices.Collect(maps.Keys(k)), "Sequence"))
	}
	one, err := k[kind](c)
	return []T{one}, err
}

func unknown(key, found string, known []string) error {
	slices.Sort(known)
	return fmt.Errorf("%s.type: expected one of %s, found %q", key, strings.Join(known, ", "), found)
}

// constant is the constructor of a component without options.
func constant[T any](v T) func(component) (T, error) {
	return func(c component) (T, error) {
		var o struct{ Type string }
		return v, c.options(&o)
	}
}

// pattern is {"String": …} or {"Regex": …}.
type pattern struct{ String, Regex *string }

func (p pattern) matcher(key string) (matcher, error) {
	switch {
	case p.String != nil && p.Regex == nil:
		return matchString(*p.String), nil
	case p.Regex != nil && p.String == nil:
		r, err := compileRegex(*p.Regex)
		if err != nil {
			return nil, fmt.Errorf("%s.pattern.Regex: %w", key, err)
		}
		return r.find, nil
	}
	return nil, fmt.Errorf("%s.pattern: expected either String or Regex", key)
}

// modelFile is a model's part of tokenizer.json, of any of the types.
type modelFile struct {
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

var modelKinds = map[string]func(*modelFile) (model, map[string]int32, error){
	"BPE": parseBPE, "Unigram": parseUnigram, "WordPiece": parseWordPiece,
}

// parseModel reads the model and its vocabulary. Older files leave the type out:
// then the other keys tell.
func parseModel(raw json.RawMessage) (model, map[string]int32, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil, fmt.Errorf("model: expected a model, found none")
	}
	var m modelFile
	if err := stage(raw, "model").options(&m); err != nil {
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
	parse := modelKinds[kind]
	if parse == nil {
		return nil, nil, unknown("model", kind, slices.Collect(maps.Keys(modelKinds)))
	}
	return parse(&m)
}

// vocab reads {"token": id, …} and the id of the unknown token, -1 where there is
// none.
func (m *modelFile) vocab() (vocab map[string]int32, unk int32, err error) {
	if err := json.Unmarshal(m.Vocab, &vocab); err != nil || len(vocab) == 0 {
		return nil, -1, fmt.Errorf("model.vocab: expected tokens with their ids, found none or others (%v)", err)
	}
	if err := checkIDs(vocab); err != nil {
		return nil, -1, err
	}
	if m.Unk == nil {
		return vocab, -1, nil
	}
	unk, ok := vocab[*m.Unk]
	if !ok {
		return nil, -1, fmt.Errorf("model.unk_token: expected a token of the vocabulary, found %q", *m.Unk)
	}
	return vocab, unk, nil
}

// setVocab fills the id tables and the tables of added tokens.
func (t *tokenizer) setVocab(vocab map[string]int32, added []addedToken) error {
	t.tokens = make(map[int32]string, len(vocab))
	t.special = map[int32]bool{}
	for s, id := range vocab {
		t.tokens[id] = s
		t.base = max(t.base, int(id)+1)
	}
	t.size = t.base
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
