package chat

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// write makes a model's folder of files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// metadata is a GGUF file of texts and a list of tokens.
func metadata(texts map[string]string, tokens ...string) string {
	var b bytes.Buffer
	put := func(v any) { binary.Write(&b, binary.LittleEndian, v) } //nolint:errcheck // to memory
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(0))
	put(uint64(len(texts) + 2))
	for key, v := range texts {
		text(key)
		put(uint32(8))
		text(v)
	}
	text("tokenizer.ggml.tokens")
	put(uint32(9))
	put(uint32(8))
	put(uint64(len(tokens)))
	for _, s := range tokens {
		text(s)
	}
	text("tokenizer.ggml.eos_token_id")
	put(uint32(4))
	put(uint32(1))
	return b.String()
}

// TestLoad checks where templates are found, by the word that they write.
func TestLoad(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	tok := tokenizerOf(t, "gemma") // without <|im_end|>
	const more = "additional_chat_templates/"
	file := filepath.Join(write(t, map[string]string{"mine.jinja": "mine"}), "mine.jinja")
	for _, c := range []struct {
		model      string // in the folder
		files      map[string]string
		name, want string
		own        bool
		err        string
	}{
		{files: map[string]string{"chat_template.jinja": "file\n", "tokenizer_config.json": `{"chat_template": "config"}`}, want: "file", own: true},
		{files: map[string]string{"tokenizer_config.json": `{"chat_template": "config {{ eos_token }}", "eos_token": {"content": "E"}}`}, want: "config E", own: true},
		{files: map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "one"}, {"name": "default", "template": "two"}]}`}, want: "two", own: true},
		{files: map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "one"}, {"name": "default", "template": "two"}]}`}, name: "rag", want: "one"},
		{files: map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "one"}]}`}, err: "expected a chat template called default, or the name of one of rag, found neither"},
		{files: map[string]string{"tokenizer_config.json": `{"chat_template": 1}`}, err: "tokenizer_config.json: chat_template: expected a template or a list of named ones"},
		{files: map[string]string{"chat_template.jinja": "file", more + "rag.jinja": "more"}, want: "file", own: true},
		{files: map[string]string{"chat_template.jinja": "file", more + "rag.jinja": "more"}, name: "rag", want: "more"},
		{files: map[string]string{"chat_template.jinja": "file", more + "rag.jinja": "more"}, name: "rags", err: `expected one of default, rag, found "rags": did you mean rag\?`},
		{name: "rag", err: "expected a model with chat templates, found none"},
		{name: file, want: "mine"},
		{name: file + "x.jinja", err: "no such file"},
		{files: map[string]string{"tokenizer_config.json": `{"eos_token": "E"}`}, want: "<|im_start|>user\nhiE\n<|im_start|>assistant\n"},
		{files: map[string]string{}, want: "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"},
		{files: map[string]string{"tokenizer.gguf": metadata(map[string]string{"tokenizer.chat_template": "gguf {{ eos_token }}", "tokenizer.chat_template.rag": "r"}, "A", "B")}, want: "gguf B", own: true},
		{files: map[string]string{"tokenizer.gguf": metadata(map[string]string{"tokenizer.chat_template": "gguf {{ eos_token }}", "tokenizer.chat_template.rag": "r"}, "A", "B")}, name: "rag", want: "r"},
		{files: map[string]string{"tokenizer.gguf": metadata(map[string]string{"tokenizer.chat_templates": "no template"}, "A", "B")}, want: "<|im_start|>user\nhiB\n<|im_start|>assistant\n"},
		{files: map[string]string{"chat_template.jinja": "{% if %}"}, err: "chat_template.jinja: chat template: "},
		{files: map[string]string{"tokenizer.gguf": metadata(map[string]string{"tokenizer.chat_template": "gguf"}, "A", "B"), "chat_template.jinja": "file"}, want: "file", own: true},
		{model: "m.gguf", files: map[string]string{"m.gguf": metadata(map[string]string{"tokenizer.chat_template": "gguf"}, "A", "B"), "chat_template.jinja": "file"}, want: "gguf", own: true},
	} {
		tmpl, err := Load(filepath.Join(write(t, c.files), c.model), c.name, tok)
		if c.err != "" {
			if err == nil || !regexp.MustCompile(c.err).MatchString(err.Error()) {
				t.Errorf("%v: found %v, want %s", c.files, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.files, err)
			continue
		}
		if text, err := tmpl.Render([]Message{{User, "hi"}}, true); err != nil || text != c.want || tmpl.Own != c.own {
			t.Errorf("%v: found %q, own %t, %v, want %q", c.files, text, tmpl.Own, err, c.want)
		}
	}
}

// TestEnd checks which token ends an answer.
func TestEnd(t *testing.T) {
	for name, want := range map[string]struct {
		tokenizer, token string
	}{"smollm": {"smollm", "<|im_end|>"}, "qwen3": {"qwen", "<|im_end|>"}, "mistral": {"mistral", "</s>"}, "gemma": {"gemma", ""}} {
		tok := tokenizerOf(t, want.tokenizer)
		id := int32(-1)
		if want.token != "" {
			ids, _ := tok.Plain(want.token)
			id = ids[0]
		}
		tmpl := (&golden{Template: name, Special: map[string]string{"eos_token": "</s>", "bos_token": "<s>"}}).template(t)
		if found, err := tmpl.End(tok); err != nil || found != id {
			t.Errorf("%s: found %d, %v, want %d", name, found, err, id)
		}
	}
}

func TestRoleOf(t *testing.T) {
	for name, want := range map[string]string{"user": User, "Human": User, "gpt": Assistant, "system": System, "tool": "", "narrator": ""} {
		found, err := RoleOf(name)
		if found != want || (err == nil) != (want != "") || (err == ErrTool) != (name == "tool") {
			t.Errorf("%s: found %q and %v, want %q", name, found, err, want)
		}
	}
}
