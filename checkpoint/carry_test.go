package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sentenceTransformer makes a directory as sentence-transformers' models have it,
// with what else lies in folders of models.
func sentenceTransformer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/golden/single")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"modules.json":                        `[{"idx":0,"path":"","type":"T"},{"idx":1,"path":"1_Pooling","type":"P"}]`,
		"1_Pooling/config.json":               `{"pooling_mode_mean_tokens":true}`,
		"2_Dense/config.json":                 `{}`,
		"2_Dense/model.safetensors":           "weights of the module",
		"sentence_bert_config.json":           `{}`,
		"config_sentence_transformers.json":   `{}`,
		"generation_config.json":              `{}`,
		"chat_template.jinja":                 "{{ x }}",
		"additional_chat_templates/rag.jinja": "{{ y }}",
		"vocab.txt":                           "[PAD]\n",
		"something.else":                      "?",
		"README.md":                           "---\nlicense: mit\n---\n# A model\n",
		"pytorch_model.bin":                   "weights",
		"pytorch_model.bin.index.json":        "{}",
		"onnx/model.onnx":                     "weights",
		"checkpoint-500/optimizer.pt":         "state",
		".gitattributes":                      "hidden",
		"metrics.jsonl":                       "{}",
	} {
		write(t, filepath.Join(dir, name), content)
	}
	return dir
}

// TestCarry: what is not weights goes along, and the card says that the model is
// another one, once.
func TestCarry(t *testing.T) {
	from := sentenceTransformer(t)
	for range 2 { // the second time from the first one's output
		d, err := OpenDir(from)
		if err != nil {
			t.Fatal(err)
		}
		o, err := CreateOutput(filepath.Join(t.TempDir(), "out"), false)
		if err != nil {
			t.Fatal(err)
		}
		copyAll(t, d.Weights, filepath.Join(o.Dir, weightsFile))
		if err := o.WriteConfig(d.Config); err != nil {
			t.Fatal(err)
		}
		if err := o.Carry(d.Path, d.Carry); err != nil {
			t.Fatal(err)
		}
		if err := o.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		var found []string
		for _, pattern := range []string{"*", "*/*"} {
			names, err := filepath.Glob(filepath.Join(o.target, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if info, err := os.Stat(n); err == nil && info.Mode().IsRegular() {
					name, _ := filepath.Rel(o.target, n)
					found = append(found, filepath.ToSlash(name))
				}
			}
		}
		slices.Sort(found)
		want := []string{
			"1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "README.md", "additional_chat_templates/rag.jinja",
			"chat_template.jinja", "config.json", "config_sentence_transformers.json", "generation_config.json", "model.safetensors",
			"modules.json", "sentence_bert_config.json", "something.else", "vocab.txt",
		}
		if !slices.Equal(found, want) {
			t.Errorf("found %q\nexpected %q", found, want)
		}
		card, err := os.ReadFile(filepath.Join(o.target, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		if s := string(card); s != "---\nlicense: mit\n---\n\n"+cardNote+"\n# A model\n" {
			t.Errorf("the card is %q", s)
		}
		// Its folders are a model's, and may be replaced with it.
		again, err := CreateOutput(o.target, true)
		if err != nil {
			t.Fatal(err)
		}
		again.Abort()
		from = o.target
	}
}

func TestModulesElsewhere(t *testing.T) {
	dir := sentenceTransformer(t)
	for content, say := range map[string]string{
		`[{"path":"../other"}]`: `path: expected a folder named as 1_Pooling is, found "../other"`,
		`{"path":"1_Pooling"}`:  "expected a list of modules",
	} {
		write(t, filepath.Join(dir, "modules.json"), content)
		if _, err := OpenDir(dir); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("found error %v, expected %s", err, say)
		}
	}
}
