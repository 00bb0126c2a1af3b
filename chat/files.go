package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/internal/choice"
	"mlpfusion/internal/gguf"
	"mlpfusion/tokenize"
)

// The files of a model that hold templates, and the name of the one that counts when
// none is asked for.
const (
	TemplateFile = "chat_template.jinja"
	moreFolder   = "additional_chat_templates"
	configFile   = "tokenizer_config.json"
	defaultName  = "default"
)

// source is a template as a file has it.
type source struct{ text, origin string }

// Load reads a model's template, as transformers looks for it: chat_template.jinja with
// additional_chat_templates, else the key chat_template of tokenizer_config.json, a
// template or a list of named ones; of a GGUF file tokenizer.chat_template and
// tokenizer.chat_template.NAME. name is one of these, or a file, or empty for the
// default one. A model without any gets ChatML.
func Load(model, name string, tok tokenize.Tokenizer) (*Template, error) {
	words, err := tokenize.SpecialTokens(model)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".jinja") {
		text, err := readFile(name)
		if err != nil {
			return nil, err
		}
		return New(text, name, words)
	}
	found, err := sources(model)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 && name == "" {
		t, err := New(chatML(tok, words), model, words)
		if err == nil {
			t.Origin = ChatML
		}
		return t, err
	}
	s, ok := found[choose(name)]
	if !ok {
		names := slices.Sorted(maps.Keys(found))
		if name == "" {
			return nil, fmt.Errorf("%s: expected a chat template called %s, or the name of one of %s, found neither", model, defaultName, strings.Join(names, ", "))
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%s: expected a model with chat templates, found none: %q is neither one of its own nor a file ending in .jinja", model, name)
		}
		return nil, fmt.Errorf("%s: chat template: %w", model, choice.Unknown(name, names))
	}
	t, err := New(s.text, s.origin, words)
	if err == nil {
		t.Own = name == "" || name == defaultName
	}
	return t, err
}

func choose(name string) string {
	if name == "" {
		return defaultName
	}
	return name
}

// sources are a model's templates by name.
func sources(model string) (map[string]source, error) {
	metadata := tokenize.GGUFFile(model)
	if metadata == model {
		return ggufSources(metadata)
	}
	found := map[string]source{}
	path := filepath.Join(model, TemplateFile)
	text, err := readFile(path)
	if err == nil {
		found[defaultName] = source{text, path}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	more, err := filepath.Glob(filepath.Join(escapeGlob(model), moreFolder, "*.jinja"))
	if err != nil {
		return nil, err
	}
	for _, path := range more {
		if text, err = readFile(path); err != nil {
			return nil, err
		}
		found[strings.TrimSuffix(filepath.Base(path), ".jinja")] = source{text, path}
	}
	if len(found) > 0 {
		return found, nil
	}
	if metadata != "" {
		return ggufSources(metadata)
	}
	return configSources(filepath.Join(model, configFile))
}

// escapeGlob has a path mean itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(path)
}

// configSources are the templates in tokenizer_config.json.
func configSources(path string) (map[string]source, error) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var config struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return nil, fmt.Errorf("%s: %w", path, choice.JSONType(err))
	}
	if len(config.Template) == 0 || string(config.Template) == "null" {
		return nil, nil
	}
	found := map[string]source{}
	var one string
	if json.Unmarshal(config.Template, &one) == nil {
		found[defaultName] = source{one, path}
		return found, nil
	}
	var list []struct{ Name, Template string }
	if json.Unmarshal(config.Template, &list) != nil {
		return nil, fmt.Errorf("%s: chat_template: expected a template or a list of named ones, found %.60q", path, config.Template)
	}
	for _, t := range list {
		found[t.Name] = source{t.Template, fmt.Sprintf("%s: %s", path, t.Name)}
	}
	return found, nil
}

// ggufSources are the templates in a GGUF file's metadata.
func ggufSources(path string) (map[string]source, error) {
	f, err := gguf.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const key = "tokenizer.chat_template"
	found := map[string]source{}
	for _, k := range slices.Sorted(maps.Keys(f.Values)) {
		rest, ok := strings.CutPrefix(k, key)
		if !ok || rest != "" && rest[0] != '.' {
			continue
		}
		text, _, err := gguf.Get[string](f, k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		found[choose(strings.TrimPrefix(rest, "."))] = source{text, path}
	}
	return found, nil
}

// maxTemplate bounds a template, and a file that holds some, in bytes.
const maxTemplate = 32 << 20

func readFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxTemplate {
		return "", fmt.Errorf("%s: expected a file of at most %d bytes, found another", path, maxTemplate)
	}
	text, err := os.ReadFile(path)
	return tokenize.Valid(string(text)), err
}

// ChatML is the origin of the template of models that have none.
const ChatML = "ChatML"

// chatML is the template of models that have none. What ends a turn is <|im_end|>, or,
// where that is no token of the model's, the token that ends its texts, so that
// answers end.
func chatML(tok tokenize.Tokenizer, words map[string]string) string {
	end := "'<|im_end|>'"
	if ids, _ := tok.Plain("<|im_end|>"); len(ids) != 1 && words["eos_token"] != "" {
		end = "eos_token"
	}
	return "{%- for message in messages -%}\n" +
		"{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + " + end + " + '\\n' -}}\n" +
		"{%- endfor -%}\n" +
		"{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n"
}
