package tokenize

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlpfusion/internal/disk"
)

// maxFile bounds what is read of one file; the largest tokenizer.json in use
// have about 20 MB.
const maxFile = 128 << 20

// sources are the files that describe a tokenizer; the first that is there counts.
var sources = []struct {
	file string
	read func(c *config, data []byte) (*tokenizer, error)
}{
	{"tokenizer.json", loadJSON},
	{"vocab.txt", loadWordPiece},
	{"vocab.json", loadBPE},
	{"spiece.model", loadT5},
}

// Load reads the tokenizer of a model directory from the first of these that
// is there: tokenizer.json; vocab.txt (BERT, DistilBERT, MiniLM, MPNet);
// vocab.json with merges.txt (GPT-2, RoBERTa); spiece.model (T5). The last three
// are completed, as transformers does, from tokenizer_config.json,
// special_tokens_map.json and the model_type in config.json. Beside a
// tokenizer.json these say the side of truncation and, for the classes that
// transformers builds anew, lower case, accents, ideographs and the space in
// front. Special tokens that only they name get the ids behind all others.
//
// Where none is there, tokenizer.gguf has a GGUF file's metadata; dir may also be
// a GGUF file itself.
//
// Errors name the file, the key, what was expected and what was found.
func Load(dir string) (Tokenizer, error) {
	if path := GGUFFile(dir); path != "" {
		return loadGGUF(path)
	}
	c, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		path := filepath.Join(dir, s.file)
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		t, err := s.read(c, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if err := t.configure(c); err != nil {
			return nil, err
		}
		return t, nil
	}
	return nil, fmt.Errorf("%s: expected tokenizer.json, vocab.txt, vocab.json with merges.txt, or spiece.model, found none", dir)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func readFile(path string) ([]byte, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: expected at most %d bytes, found more", path, maxFile)
	}
	return data, nil
}

// need is the id of a token that the templates cannot do without.
func need(vocab map[string]int32, added []addedToken, t addedToken, role string) (int32, error) {
	for _, a := range added {
		if a.Content == t.Content {
			return a.ID, nil
		}
	}
	if id, ok := vocab[t.Content]; ok {
		return id, nil
	}
	return 0, fmt.Errorf("expected the %s %q, found none", role, t.Content)
}

// loadJSON reads tokenizer.json.
func loadJSON(c *config, data []byte) (*tokenizer, error) { return parseTokenizer(data, c) }

// loadWordPiece reads vocab.txt: one token a line, the line number from 0 is
// its id.
func loadWordPiece(c *config, data []byte) (*tokenizer, error) {
	vocab := make(map[string]int32, bytes.Count(data, []byte{'\n'})+1)
	id := int32(0)
	for line := range bytes.Lines(data) {
		vocab[Valid(string(bytes.TrimRightFunc(line, isSpace)))] = id
		id++
	}
	cls, sep, pad := c.token("cls_token", "[CLS]"), c.token("sep_token", "[SEP]"), c.token("pad_token", "[PAD]")
	unk, mask := c.token("unk_token", "[UNK]"), c.token("mask_token", "[MASK]")
	around := bertTemplates
	if c.family("mpnet") {
		cls, sep, pad = c.token("cls_token", "<s>"), c.token("sep_token", "</s>"), c.token("pad_token", "<pad>")
		mask = c.token("mask_token", "<mask>")
		if _, given := c.tokens["mask_token"]; !given {
			mask.LStrip = true
		}
		around = robertaTemplates
	}
	added, err := c.withVocab(vocab, pad, unk, cls, sep, mask)
	if err != nil {
		return nil, err
	}
	clsID, err := need(vocab, added, cls, "cls_token")
	if err != nil {
		return nil, err
	}
	sepID, err := need(vocab, added, sep, "sep_token")
	if err != nil {
		return nil, err
	}
	unkID, err := need(vocab, nil, unk, "unk_token")
	if err != nil {
		return nil, err
	}
	yes := func(b *bool) bool { return b == nil || *b }
	o := c.options
	strip := yes(o.Lower)
	if o.StripAccents != nil {
		strip = *o.StripAccents
	}
	m, err := newWordPiece(vocab, unkID, "##", 100)
	if err != nil {
		return nil, err
	}
	t := &tokenizer{
		normalizers:   []normalizer{bertNormalizer{true, yes(o.Ideographs), strip, yes(o.Lower)}},
		preTokenizers: []preTokenizer{bertPreTokenizer{}},
		model:         m,
		decoders:      []decoder{decodeWordPiece("##", true)},
		pad:           -1,
	}
	t.templates = around(clsID, sepID)
	if id, ok := vocab[pad.Content]; ok {
		t.pad = id
	}
	return t, t.setVocab(vocab, added)
}

// loadBPE reads vocab.json and the merges.txt beside it: RoBERTa's tokenizer or
// GPT-2's, by the tokenizer class, the model type, or the special tokens.
func loadBPE(c *config, data []byte) (*tokenizer, error) {
	var vocab map[string]int32
	if err := json.Unmarshal(data, &vocab); err != nil || len(vocab) == 0 {
		return nil, fmt.Errorf("expected tokens with their ids, found none or others (%v)", err)
	}
	if err := checkIDs(vocab); err != nil {
		return nil, err
	}
	path := filepath.Join(c.dir, "merges.txt")
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("expected merges.txt beside it: %w", err)
	}
	merges, err := parseMergeLines(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m, err := newBPE(vocab, merges, bpeOptions{unk: -1})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t := &tokenizer{
		preTokenizers: []preTokenizer{byteLevel{prefixSpace: c.options.PrefixSpace != nil && *c.options.PrefixSpace, pattern: true}},
		model:         m,
		decoders:      []decoder{decodeByteLevel},
		pad:           -1,
	}
	_, hasBOS := vocab["<s>"]
	_, hasEnd := vocab["<|endoftext|>"]
	var added []addedToken
	switch {
	case c.family("roberta", "distilroberta"), !c.family("gpt2") && c.options.Class == "" && hasBOS:
		cls, sep := c.token("cls_token", "<s>"), c.token("sep_token", "</s>")
		pad := c.token("pad_token", "<pad>")
		added, err = c.withVocab(vocab, c.token("bos_token", "<s>"), c.token("eos_token", "</s>"),
			c.token("unk_token", "<unk>"), sep, pad, cls, c.token("mask_token", "<mask>"))
		if err != nil {
			return nil, err
		}
		clsID, err := need(vocab, added, cls, "cls_token")
		if err != nil {
			return nil, err
		}
		sepID, err := need(vocab, added, sep, "sep_token")
		if err != nil {
			return nil, err
		}
		t.templates = robertaTemplates(clsID, sepID)
		if id, ok := vocab[pad.Content]; ok {
			t.pad = id
		}
	case c.family("gpt2"), c.options.Class == "" && hasEnd:
		bos, eos := c.token("bos_token", "<|endoftext|>"), c.token("eos_token", "<|endoftext|>")
		if added, err = c.withVocab(vocab, c.token("unk_token", "<|endoftext|>"), bos, eos); err != nil {
			return nil, err
		}
		for kind := range int32(2) {
			part := slot{part: int(kind) + 1, kind: kind}
			if c.options.AddBOS {
				id, err := need(vocab, added, bos, "bos_token")
				if err != nil {
					return nil, err
				}
				t.pair = append(t.pair, slot{id: id, kind: kind})
			}
			t.pair = append(t.pair, part)
			if c.options.AddEOS {
				id, err := need(vocab, added, eos, "eos_token")
				if err != nil {
					return nil, err
				}
				t.pair = append(t.pair, slot{id: id, kind: kind})
			}
			if kind == 0 {
				t.single = slices.Clone(t.pair)
			}
		}
	default:
		return nil, fmt.Errorf("expected the tokenizer of RoBERTa or GPT-2, found the class %q and the model type %q", c.options.Class, c.model)
	}
	return t, t.setVocab(vocab, added)
}

// parseMergeLines reads merges.txt: two tokens a line, the first line may be a
// version.
func parseMergeLines(data []byte) ([][2]string, error) {
	var merges [][2]string
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.HasPrefix(line, "#version") {
			continue
		}
		parts := strings.Split(line, " ")
		if len(parts) != 2 {
			return nil, fmt.Errorf("line %d: expected two tokens with a space between, found %q", n, line)
		}
		merges = append(merges, [2]string(parts))
	}
	return merges, lines.Err()
}

// loadT5 reads spiece.model, which is T5's unless the files beside it say
// otherwise.
func loadT5(c *config, data []byte) (*tokenizer, error) {
	if (c.options.Class != "" || c.model != "") && !c.family("t5", "mt5", "switch_transformers") {
		return nil, fmt.Errorf("expected the tokenizer of T5, found the class %q and the model type %q", c.options.Class, c.model)
	}
	m, err := parseSpiece(data)
	if err != nil {
		return nil, err
	}
	extra := 100
	if n := c.options.ExtraIDs; n != nil {
		if extra = *n; extra < 0 || extra > 1<<16 {
			return nil, fmt.Errorf("extra_ids: expected 0 to %d, found %d", 1<<16, extra)
		}
	}
	return newT5(m, c.token("pad_token", "<pad>").Content, c.token("eos_token", "</s>").Content, extra, c)
}
