package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mlpfusion/internal/disk"
)

// weightEndings end the names of files of weights, and of training's state.
var weightEndings = []string{
	".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".npz", ".tflite", ".gguf", ".index.json",
	".mlmodel", ".nemo", ".pkl", ".tar", ".gz", ".zip",
}

// carries tells whether a file beside a model's weights goes along to a model made
// from it: all but weights, the configuration, which is written anew, what a run's
// steps came to, and hidden files.
func carries(name string) bool {
	ends := func(end string) bool { return strings.HasSuffix(name, end) }
	return name == ggufTokenizer || !slices.ContainsFunc(weightEndings, ends) && !strings.HasPrefix(name, ".") && name != "config.json" && name != "metrics.jsonl"
}

// folders are those that belong to a model: of sentence-transformers' modules, such
// as 1_Pooling, and of chat templates.
var folders = regexp.MustCompile(`^([0-9]+_[A-Za-z]+|additional_chat_templates)$`)

// others lists the files that go along from a directory, those in its folders by
// their path.
func others(dir string) ([]string, error) {
	entries, err := disk.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path) // a cache of the hub has links
		switch {
		case err != nil: // a link to nothing
		case info.Mode().IsRegular() && carries(e.Name()):
			names = append(names, e.Name())
		case info.IsDir() && folders.MatchString(e.Name()):
			inner, err := disk.ReadDir(path)
			if err != nil {
				return nil, err
			}
			for _, f := range inner { // of all kinds: these weights are their own
				if info, err := os.Stat(filepath.Join(path, f.Name())); err == nil && info.Mode().IsRegular() {
					names = append(names, filepath.Join(e.Name(), f.Name()))
				}
			}
		}
	}
	return names, checkModules(dir)
}

// checkModules refuses a list of sentence-transformers' modules of which one is not in
// a folder that goes along.
func checkModules(dir string) error {
	const name = "modules.json"
	path := filepath.Join(dir, name)
	if !exists(path) {
		return nil
	}
	data, err := readSmallFile(path)
	if err != nil {
		return err
	}
	var modules []struct {
		Path string `json:"path"`
	}
	if json.Unmarshal(data, &modules) != nil {
		return fmt.Errorf("%s: expected a list of modules with a path each, found %s", path, shown(oneLine(data)))
	}
	for _, m := range modules {
		if m.Path != "" && !folders.MatchString(m.Path) {
			return fmt.Errorf("%s: path: expected a folder named as 1_Pooling is, found %q", path, m.Path)
		}
	}
	return nil
}

// cardNote says in a model's card that the model is another one.
const cardNote = "> This is the card of the model that mlpfusion made this one from. Its MLPs may have been compressed and its weights\n> trained further: config.json says what was done, and figures below are not of this model.\n"

// card is a README.md with the note, behind the settings that it may begin with.
func card(text []byte) []byte {
	if bytes.Contains(text, []byte(cardNote)) {
		return text
	}
	at := 0
	if bytes.HasPrefix(text, []byte("---\n")) {
		if end := bytes.Index(text[4:], []byte("\n---\n")); end >= 0 {
			at = 4 + end + len("\n---\n")
		}
	}
	return slices.Concat(text[:at], []byte("\n"+cardNote+"\n"), text[at:])
}

// carryCard writes a README.md with the note.
func carryCard(from, to string) error {
	text, err := readSmallFile(from)
	if err != nil {
		return err
	}
	return WriteFileAtomic(to, card(text))
}
