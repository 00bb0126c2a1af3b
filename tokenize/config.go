package tokenize

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/internal/choice"
)

// config is what the small JSON files beside a vocabulary say.
type config struct {
	dir     string
	path    string // of tokenizer_config.json
	model   string // model_type of config.json
	options options
	tokens  map[string]addedToken // by role: cls_token …
	extra   []addedToken          // further special tokens
	added   []addedToken
}

type options struct {
	Class        string                `json:"tokenizer_class"`
	Lower        *bool                 `json:"do_lower_case"`
	StripAccents *bool                 `json:"strip_accents"`
	Ideographs   *bool                 `json:"tokenize_chinese_chars"`
	PrefixSpace  *bool                 `json:"add_prefix_space"`
	AddBOS       bool                  `json:"add_bos_token"`
	AddEOS       bool                  `json:"add_eos_token"`
	Side         string                `json:"truncation_side"`
	ExtraIDs     *int                  `json:"extra_ids"`
	Added        map[string]addedToken `json:"added_tokens_decoder"`
}

func readConfig(dir string) (*config, error) {
	c := &config{dir: dir, path: filepath.Join(dir, "tokenizer_config.json"), tokens: map[string]addedToken{}}
	var model struct {
		ModelType string `json:"model_type"`
	}
	var more, roles map[string]json.RawMessage
	for _, f := range []struct {
		path string
		into []any
	}{
		{filepath.Join(dir, "config.json"), []any{&model}},
		{filepath.Join(dir, "special_tokens_map.json"), []any{&more}},
		{c.path, []any{&roles, &c.options}},
	} {
		data, err := readFile(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, v := range f.into {
			if err := json.Unmarshal(data, v); err != nil {
				return nil, fmt.Errorf("%s: %w", f.path, choice.JSONType(err))
			}
		}
	}
	c.model = model.ModelType
	for _, m := range []map[string]json.RawMessage{more, roles} { // tokenizer_config.json wins
		for _, key := range []string{"additional_special_tokens", "extra_special_tokens"} {
			extra, err := specialTokens(m[key])
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.path, key, err)
			}
			if extra != nil {
				c.extra = extra
			}
		}
		for role, raw := range m {
			if !strings.HasSuffix(role, "_token") || string(raw) == "null" {
				continue
			}
			var t addedToken
			if json.Unmarshal(raw, &t.Content) == nil || json.Unmarshal(raw, &t) == nil && t.Content != "" {
				t.Special, t.Normalized = true, false
				c.tokens[role] = t
			}
		}
	}
	if c.options.Added == nil {
		if err := c.readAdded(); err != nil {
			return nil, err
		}
	}
	for key, t := range c.options.Added {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 {
			return nil, fmt.Errorf("%s: added_tokens_decoder: expected ids as keys, found %q", c.path, key)
		}
		t.ID = int32(id)
		c.added = append(c.added, t)
	}
	slices.SortFunc(c.added, func(a, b addedToken) int { return int(a.ID - b.ID) })
	if s := c.options.Side; s != "" && s != "left" && s != "right" {
		return nil, fmt.Errorf("%s: truncation_side: expected left or right, found %q", c.path, s)
	}
	return c, nil
}

// specialTokens reads a list of tokens, which may also be an object of them by
// name.
func specialTokens(raw json.RawMessage) ([]addedToken, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		var named map[string]json.RawMessage
		if err := json.Unmarshal(raw, &named); err != nil {
			return nil, fmt.Errorf("expected a list of tokens, found %.40s", raw)
		}
		for _, name := range slices.Sorted(maps.Keys(named)) {
			list = append(list, named[name])
		}
	}
	tokens := []addedToken{}
	for _, raw := range list {
		var t addedToken
		if json.Unmarshal(raw, &t.Content) != nil && json.Unmarshal(raw, &t) != nil || t.Content == "" {
			return nil, fmt.Errorf("expected tokens, found %.40s", raw)
		}
		t.Special = true
		tokens = append(tokens, t)
	}
	return tokens, nil
}

// readAdded takes the tokens of added_tokens.json, the older form of
// added_tokens_decoder, where there is no tokenizer.json that holds them.
func (c *config) readAdded() error {
	if _, err := os.Stat(filepath.Join(c.dir, "tokenizer.json")); err == nil {
		return nil
	}
	path := filepath.Join(c.dir, "added_tokens.json")
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var ids map[string]int32
	if err := json.Unmarshal(data, &ids); err != nil {
		return fmt.Errorf("%s: expected tokens with their ids: %w", path, choice.JSONType(err))
	}
	special := map[string]bool{}
	for _, t := range c.tokens {
		special[t.Content] = true
	}
	for _, t := range c.extra {
		special[t.Content] = true
	}
	c.options.Added = map[string]addedToken{}
	for s, id := range ids {
		c.options.Added[strconv.Itoa(int(id))] = addedToken{Content: s, Special: special[s], Normalized: !special[s]}
	}
	if len(c.options.Added) != len(ids) {
		return fmt.Errorf("%s: expected an id of its own for each token, found one twice", path)
	}
	return nil
}

// roles are the special tokens' names, in the order in which transformers adds
// those that a vocabulary lacks.
var roles = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

// complete adds to the added tokens those that only the configuration names. What
// has no id yet gets the next one, as in transformers.
func (c *config) complete(vocab map[string]int32, added []addedToken) ([]addedToken, error) {
	known, next := map[string]bool{}, int32(len(vocab))
	for _, t := range added {
		known[t.Content] = true
		next = max(next, t.ID+1)
	}
	add := func(t addedToken) addedToken {
		id, ok := vocab[t.Content]
		if !ok {
			id = next
			next++
		}
		t.ID, known[t.Content] = id, true
		added = append(added, t)
		return t
	}
	for _, t := range c.added {
		if known[t.Content] {
			continue
		}
		if got := add(t); got.ID != t.ID {
			return nil, fmt.Errorf("added tokens: expected the id %d for %q, which the vocabulary's size leaves, found %d", got.ID, t.Content, t.ID)
		}
	}
	for _, role := range roles {
		if t, ok := c.tokens[role]; ok && !known[t.Content] {
			add(t)
		}
	}
	for _, t := range c.extra {
		if !known[t.Content] {
			add(t)
		}
	}
	return added, nil
}

// override changes what tokenizer.json says of case, accents, ideographs and the
// space in front where tokenizer_config.json says it of a class that transformers
// builds anew, from the vocabulary alone.
func (c *config) override(t *tokenizer) {
	o := c.options
	for i, n := range t.normalizers {
		b, ok := n.(bertNormalizer)
		if !ok || !c.family("bert", "distilbert", "mpnet") {
			continue
		}
		if o.Lower != nil {
			b.lower, b.strip = *o.Lower, *o.Lower
		}
		if o.StripAccents != nil {
			b.strip = *o.StripAccents
		}
		if o.Ideographs != nil {
			b.ideographs = *o.Ideographs
		}
		t.normalizers[i] = b
	}
	if o.PrefixSpace == nil {
		return
	}
	for i, p := range t.preTokenizers {
		if b, ok := p.(byteLevel); ok && c.family("gpt2", "roberta", "distilroberta", "qwen2", "qwen3") {
			b.prefixSpace = *o.PrefixSpace
			t.preTokenizers[i] = b
		}
	}
}

// configure applies what tokenizer_config.json says of any tokenizer.
func (t *tokenizer) configure(c *config) error {
	if c.options.Side != "" {
		t.truncateLeft = c.options.Side == "left"
	}
	if pad, ok := c.tokens["pad_token"]; ok {
		for id, s := range t.tokens {
			if s == pad.Content {
				t.pad = id
				return nil
			}
		}
	}
	return nil
}

// family is one of the names that the model or its tokenizer class goes by.
func (c *config) family(names ...string) bool {
	class := strings.ToLower(strings.TrimSuffix(c.options.Class, "Fast"))
	for _, n := range names {
		if class == n+"tokenizer" || class == "" && c.model == n {
			return true
		}
	}
	return false
}

// token is the token of a role, such as "cls_token", by the files or else by
// default.
func (c *config) token(role, otherwise string) addedToken {
	if t, ok := c.tokens[role]; ok {
		return t
	}
	return addedToken{Content: otherwise, Special: true}
}

// withVocab gives the special tokens of roles that the vocabulary holds, and all
// that the configuration adds, their ids.
func (c *config) withVocab(vocab map[string]int32, roles ...addedToken) ([]addedToken, error) {
	var added []addedToken
	for _, t := range roles {
		same := func(a addedToken) bool { return a.Content == t.Content }
		id, ok := vocab[t.Content]
		if ok && !slices.ContainsFunc(c.added, same) && !slices.ContainsFunc(added, same) {
			t.ID = id
			added = append(added, t)
		}
	}
	return c.complete(vocab, added)
}
