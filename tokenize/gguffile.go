package tokenize

import (
	"fmt"
	"path/filepath"
	"strings"

	"mlpfusion/internal/gguf"
)

// ggufFile is the name under which a model directory keeps the metadata of the GGUF
// file that it came from.
const ggufFile = "tokenizer.gguf"

// isGGUF tells a GGUF file by its name.
func isGGUF(path string) bool { return strings.EqualFold(filepath.Ext(path), ".gguf") }

// GGUFFile is the file whose metadata describe the tokenizer of a model: the GGUF file
// that the model is, or what its directory keeps of one; "" if it has other files.
func GGUFFile(model string) string {
	if isGGUF(model) {
		return model
	}
	for _, s := range sources {
		if isFile(filepath.Join(model, s.file)) {
			return ""
		}
	}
	if path := filepath.Join(model, ggufFile); isFile(path) {
		return path
	}
	return ""
}

// loadGGUF reads the tokenizer in a GGUF file's metadata.
func loadGGUF(path string) (Tokenizer, error) {
	g, err := openGGUF(path)
	if err != nil {
		return nil, err
	}
	t, err := FromGGUF(g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func openGGUF(path string) (g GGUF, err error) {
	file, err := gguf.ReadFile(path)
	if err != nil {
		return g, err
	}
	if g, err = readGGUF(file); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return g, err
}

// readGGUF returns what a file says of its tokenizer.
func readGGUF(f *gguf.File) (g GGUF, err error) {
	g.Model = ggufValue(f, "model", "", &err)
	g.Pre = ggufValue(f, "pre", "", &err)
	g.Tokens = ggufValue[[]string](f, "tokens", nil, &err)
	for _, v := range ggufValue[[]float64](f, "scores", nil, &err) {
		g.Scores = append(g.Scores, float32(v))
	}
	for _, v := range ggufValue[[]int64](f, "token_type", nil, &err) {
		g.Types = append(g.Types, int32(min(max(v, -1), 1<<30)))
	}
	g.Merges = ggufValue[[]string](f, "merges", nil, &err)
	for key, id := range map[string]*int32{"bos_token_id": &g.BOS, "eos_token_id": &g.EOS, "unknown_token_id": &g.Unknown, "padding_token_id": &g.Pad} {
		*id = int32(min(max(ggufValue(f, key, int64(-1), &err), -2), 1<<30))
	}
	for key, flag := range map[string]**bool{"add_bos_token": &g.AddBOS, "add_eos_token": &g.AddEOS, "add_space_prefix": &g.SpacePrefix} {
		if _, ok := f.Values["tokenizer.ggml."+key]; ok {
			v := ggufValue(f, key, false, &err)
			*flag = &v
		}
	}
	return g, err
}

// ggufValue returns a key of the tokenizer's, and keeps the first error.
func ggufValue[T any](f *gguf.File, key string, otherwise T, first *error) T {
	v, ok, err := gguf.Get[T](f, "tokenizer.ggml."+key)
	if *first == nil {
		*first = err
	}
	if !ok {
		return otherwise
	}
	return v
}
