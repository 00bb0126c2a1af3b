package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mlpfusion/checkpoint"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mlpfusion": func() {
		setFault()
		main()
	}})
}

// TestScripts runs testdata/script: the program as a user runs it, on tiny
// models of model/testdata with a tiny tokenizer and tiny data sets. Commands
// of ours besides testscript's:
//
//	model NAME DIR            copy a checkpoint, with a vocabulary of letters and words, or bytes
//	spoil HOW DIR             break it in the way named
//	exits CODE COMMAND...     run, and check the exit code
//	refused CODE RE ARGS...   run mlpfusion: one sentence that matches, nothing on
//	                          standard output, no file made, changed or left
//	swapped DIR               swap the two classes of a classifier
//	talks MODEL               predict answers each line before the next, and stops on Ctrl-C
//	converses DIR             chat goes on after a Ctrl-C that stops an answer
//	appears FILE              wait for a file of a program in the background
//	has FILE KEY...           JSON, or a JSON object a line, that has the keys
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"model": scriptModel, "spoil": scriptSpoil, "exits": scriptExits, "refused": scriptRefused, "appears": scriptAppears, "swapped": scriptSwapped, "talks": scriptTalks, "converses": scriptConverses, "has": scriptHas,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir) // the hub's cache, and the demo's
			env.Setenv("HF_HUB_OFFLINE", "1")
			return writeData(filepath.Join(env.WorkDir, "sst2"))
		},
	})
}

// vocabulary fits the 96 entries of the tiny models.
func vocabulary() string {
	v := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	for c := 'a'; c <= 'z'; c++ {
		v = append(v, string(c), "##"+string(c))
	}
	v = append(v, "good", "bad", "fine", "poor", "film", "plot", ".", "!")
	return strings.Join(v, "\n") + "\n"
}

// writeBytePairs writes a byte-level tokenizer of the tiny models' 96 entries:
// the space, the line's end, letters, digits and signs, and GPT-2's end of text.
func writeBytePairs(dir string) error {
	ids := map[string]int{"Ġ": 0, "Ċ": 1, "<|endoftext|>": 95}
	for c := '!'; c < '~'; c++ {
		ids[string(c)] = len(ids) - 1
	}
	text, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "vocab.json"), text, 0o666), os.WriteFile(filepath.Join(dir, "merges.txt"), []byte("#version: 0.2\n"), 0o666))
}

// writeData makes a data set as GLUE's SST-2, whose first word tells the label.
func writeData(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, split := range []struct {
		name string
		rows int
	}{{"train", 40}, {"dev", 20}} {
		text := "sentence\tlabel\n"
		for i := range split.rows {
			word := []string{"bad", "poor", "good", "fine"}[2*(i%2)+rng.IntN(2)]
			text += fmt.Sprintf("%s %s %c .\t%d\n", word, []string{"film", "plot"}[rng.IntN(2)], 'a'+rng.IntN(26), i%2)
		}
		if err := os.WriteFile(filepath.Join(dir, split.name+".tsv"), []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}

func scriptModel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: model NAME DIR")
	}
	ts.Check(writeModel(args[0], ts.MkAbs(args[1])))
}

// writeModel copies a checkpoint of model/testdata and adds a tokenizer.
func writeModel(name, to string) error {
	from := filepath.Join("..", "..", "model", "testdata", name)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "golden.safetensors" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), data, 0o666)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case strings.HasPrefix(name, "gpt2"):
		return writeBytePairs(to)
	case slices.Contains([]string{"llama-3", "phi3", "gemma3"}, name):
		return errors.Join(writeBytePairs(to), os.WriteFile(filepath.Join(to, "tokenizer_config.json"), []byte(`{"tokenizer_class": "GPT2Tokenizer"}`), 0o666))
	case strings.HasPrefix(name, "t5"), strings.HasPrefix(name, "switch"):
		return os.WriteFile(filepath.Join(to, "tokenizer.json"), endingTokenizer(), 0o666)
	}
	return os.WriteFile(filepath.Join(to, "vocab.txt"), []byte(vocabulary()), 0o666)
}

// endingTokenizer is a tokenizer.json with the words of vocabulary, in which every
// text ends with </s>, number 1, as T5's do.
func endingTokenizer() []byte {
	vocab := map[string]int{}
	for i, w := range strings.Fields(vocabulary()) {
		vocab[w] = i
	}
	for old, special := range map[string]string{"[PAD]": "<pad>", "[UNK]": "</s>", "[CLS]": "<unk>"} {
		vocab[special] = vocab[old]
		delete(vocab, old)
	}
	sequence := func(id string) map[string]any {
		return map[string]any{"Sequence": map[string]any{"id": id, "type_id": 0}}
	}
	end := map[string]any{"SpecialToken": map[string]any{"id": "</s>", "type_id": 0}}
	special := []map[string]any{}
	for id, content := range []string{"<pad>", "</s>", "<unk>"} {
		special = append(special, map[string]any{"id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	text, err := json.Marshal(map[string]any{
		"version": "1.0", "added_tokens": special, "normalizer": nil, "pre_tokenizer": map[string]any{"type": "BertPreTokenizer"},
		"post_processor": map[string]any{
			"type": "TemplateProcessing", "single": []any{sequence("A"), end}, "pair": []any{sequence("A"), end, sequence("B"), end},
			"special_tokens": map[string]any{"</s>": map[string]any{"id": "</s>", "ids": []int{1}, "tokens": []string{"</s>"}}},
		},
		"decoder": map[string]any{"type": "WordPiece", "prefix": "##", "cleanup": true},
		"model":   map[string]any{"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
	})
	if err != nil {
		panic(err)
	}
	return text
}

// broken is the tensor that spoil works on.
const broken = "bert.encoder.layer.2.intermediate.dense.weight"

func scriptSpoil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: spoil HOW DIR")
	}
	dir := ts.MkAbs(args[1])
	weights, config := filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "config.json")
	entry := func(f func(header map[string]any, e map[string]any)) {
		ts.Check(editHeader(weights, func(h map[string]any) { f(h, h[broken].(map[string]any)) }))
	}
	switch args[0] {
	case "truncated":
		info, err := os.Stat(weights)
		ts.Check(err)
		ts.Check(os.Truncate(weights, info.Size()-100))
	case "oversized-offset":
		entry(func(_, e map[string]any) { e["data_offsets"] = []any{0, 1 << 60} })
	case "overlapping":
		entry(func(h, e map[string]any) {
			e["data_offsets"] = h[strings.Replace(broken, "layer.2", "layer.1", 1)].(map[string]any)["data_offsets"]
		})
	case "wrong-shape":
		entry(func(_, e map[string]any) { e["shape"] = []any{32, 64} })
	case "missing":
		ts.Check(rewrite(dir, func(name string) bool { return name != broken }, nil, nil))
	case "headless":
		ts.Check(rewrite(dir, func(name string) bool { return !strings.HasPrefix(name, "classifier") }, nil, nil))
	case "surplus":
		ts.Check(rewrite(dir, func(string) bool { return true }, []checkpoint.Spec{{Name: "bert.encoder.layer.3.adapter.weight", DType: checkpoint.F32, Shape: []int{2, 3}}}, nil))
	case "config":
		ts.Check(replace(config, `"intermediate_size": 64`, `"intermediate_size": 128`))
	case "trained":
		ts.Check(os.WriteFile(filepath.Join(dir, "trained_rows.json"), []byte(`{"rows": 1, "digests": ""}`), 0o666))
	case "multi-label":
		ts.Check(replace(config, `single_label_classification`, `multi_label_classification`))
	case "type":
		ts.Check(replace(config, `"model_type": "bert"`, `"model_type": "mamba"`))
	case "no-json":
		ts.Check(os.WriteFile(config, []byte("{"), 0o666))
	case "vocabulary":
		f, err := os.OpenFile(filepath.Join(dir, "vocab.txt"), os.O_APPEND|os.O_WRONLY, 0)
		ts.Check(err)
		for i := range 96 {
			fmt.Fprintf(f, "word%d\n", i)
		}
		ts.Check(f.Close())
	case "nan":
		data, err := os.ReadFile(weights)
		ts.Check(err)
		n := binary.LittleEndian.Uint64(data)
		var h map[string]struct {
			Offsets [2]int `json:"data_offsets"`
		}
		ts.Check(json.Unmarshal(bytes.Replace(data[8:8+n], []byte(`"__metadata__":{"format":"pt"},`), nil, 1), &h))
		binary.LittleEndian.PutUint32(data[8+int(n)+h[broken].Offsets[0]+4*5:], math.Float32bits(float32(math.NaN())))
		ts.Check(os.WriteFile(weights, data, 0o666))
	default:
		ts.Fatalf("spoil: unknown way %s", args[0])
	}
}

// editHeader changes a safetensors file's header, whatever comes of it.
func editHeader(path string, f func(map[string]any)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(data)
	var h map[string]any
	if err := json.Unmarshal(data[8:8+n], &h); err != nil {
		return err
	}
	f(h)
	header, err := json.Marshal(h)
	if err != nil {
		return err
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return os.WriteFile(path, append(append(out, header...), data[8+n:]...), 0o666)
}

// rewrite writes the weights again with some tensors left out and some added, of
// the values given or zeros.
func rewrite(dir string, keep func(name string) bool, more []checkpoint.Spec, values map[string][]float32) error {
	r, err := checkpoint.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return err
	}
	defer r.Close()
	specs := slices.Clone(more)
	for _, name := range r.Names() {
		if t, _ := r.Tensor(name); keep(name) {
			specs = append(specs, t.Spec())
		}
	}
	w, err := checkpoint.CreateFile(filepath.Join(dir, "model.safetensors"), specs, map[string]string{"format": "pt"})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, name := range r.Names() {
		if t, _ := r.Tensor(name); keep(name) {
			if err := w.Copy(t.Name, t); err != nil {
				return err
			}
		}
	}
	for _, s := range more {
		v := values[s.Name]
		if v == nil {
			n := 1
			for _, d := range s.Shape {
				n *= d
			}
			v = make([]float32, n)
		}
		if err := w.WriteFloat32(s.Name, v); err != nil {
			return err
		}
	}
	return w.Commit()
}

func replace(path, old, by string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), old) {
		return fmt.Errorf("%s has no %s", path, old)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), old, by, 1)), 0o666)
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	exits(ts, args[0], args[1:])
}

func exits(ts *testscript.TestScript, want string, args []string) {
	err := ts.Exec(args[0], args[1:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

func scriptRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: refused CODE RE ARGS...")
	}
	before := listing(ts)
	exits(ts, args[0], append([]string{"mlpfusion", "--quiet"}, args[2:]...))
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("expected nothing on standard output, found %q", out)
	}
	message := strings.TrimSuffix(ts.ReadFile("stderr"), "\n")
	if args[0] == "2" {
		message = regexp.MustCompile(`\nRun 'mlpfusion( [a-z]+)? --help' for usage\.$`).ReplaceAllString(message, "")
	}
	if !strings.HasPrefix(message, "mlpfusion: ") || strings.Contains(message, "\n") || len(message) > 800 {
		ts.Fatalf("expected one sentence, found %q", message)
	}
	if !regexp.MustCompile(args[1]).MatchString(message) {
		ts.Fatalf("expected a message that matches %s, found %q", args[1], message)
	}
	if after := listing(ts); after != before {
		ts.Fatalf("the files were\n%s\nand are\n%s", before, after)
	}
}

// listing names all files of the working directory with sizes and times.
func listing(ts *testscript.TestScript) string {
	var b strings.Builder
	root := ts.Getenv("WORK")
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !d.IsDir() {
			fmt.Fprintf(&b, "%s %d %d\n", strings.TrimPrefix(path, root), info.Size(), info.ModTime().UnixNano())
			return nil
		}
		fmt.Fprintf(&b, "%s/\n", strings.TrimPrefix(path, root))
		return nil
	}))
	return b.String()
}

func scriptSwapped(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: swapped DIR")
	}
	dir := ts.MkAbs(args[0])
	const weight, bias = "classifier.weight", "classifier.bias"
	swapped := map[string][]float32{}
	var specs []checkpoint.Spec
	r, err := checkpoint.Open(filepath.Join(dir, "model.safetensors"))
	ts.Check(err)
	for _, name := range []string{weight, bias} {
		tensor, ok := r.Tensor(name)
		if !ok {
			ts.Fatalf("%s has no %s", dir, name)
		}
		v := make([]float32, tensor.Elements())
		ts.Check(tensor.ReadFloat32(v))
		swapped[name] = append(slices.Clone(v[len(v)/2:]), v[:len(v)/2]...)
		specs = append(specs, checkpoint.Spec{Name: name, DType: checkpoint.F32, Shape: slices.Clone(tensor.Shape)})
	}
	ts.Check(r.Close())
	ts.Check(rewrite(dir, func(name string) bool { return swapped[name] == nil }, specs, swapped))
	config := filepath.Join(dir, "config.json")
	ts.Check(replace(config, `"0": "negative"`, `"0": "POSITIVE"`))
	ts.Check(replace(config, `"1": "positive"`, `"1": "NEGATIVE"`))
}

func scriptTalks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: talks MODEL")
	}
	program, err := exec.LookPath("mlpfusion")
	ts.Check(err)
	cmd := exec.Command(program, "predict", ts.MkAbs(args[0]))
	var errs strings.Builder
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	ts.Check(err)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	defer late.Stop()
	answers := bufio.NewScanner(out)
	for range 2 {
		_, err := io.WriteString(in, "a good film\n")
		ts.Check(err)
		if !answers.Scan() || !strings.HasSuffix(answers.Text(), "\ta good film") {
			ts.Fatalf("expected an answer to the line, found %q", answers.Text())
		}
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted || errs.String() != "mlpfusion: stopped\n" {
		ts.Fatalf("after an interrupt %v, %q", err, errs.String())
	}
}

// scriptConverses talks with a model that has room for answers without end.
func scriptConverses(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: converses DIR")
	}
	config := filepath.Join(ts.MkAbs(args[0]), "config.json")
	ts.Check(replace(config, `"max_position_embeddings": 64`, `"max_position_embeddings": 100000`))
	program, err := exec.LookPath("mlpfusion")
	ts.Check(err)
	cmd := exec.Command(program, "chat", ts.MkAbs(args[0]), "--max-new-tokens", "90000", "--min-new-tokens", "90000")
	in, err := cmd.StdinPipe()
	ts.Check(err)
	out, err := os.Create(ts.MkAbs("answers"))
	ts.Check(err)
	defer out.Close()
	cmd.Stdout = out
	errs, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	late := time.AfterFunc(60*time.Second, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	defer late.Stop()
	said := bufio.NewScanner(errs)
	var before int64 // bytes of the answers before
	for range 2 {
		_, err := io.WriteString(in, "who?\n")
		ts.Check(err)
		for start := time.Now(); size(ts, out) < before+20; time.Sleep(time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				ts.Fatalf("expected an answer, found %d bytes", size(ts, out)-before)
			}
		}
		ts.Check(cmd.Process.Signal(os.Interrupt))
		_, err = io.WriteString(in, "/help\n")
		ts.Check(err)
		if !said.Scan() || !strings.Contains(said.Text(), "/system") {
			ts.Fatalf("expected help once the answer was stopped, found %q", said.Text())
		}
		before = size(ts, out) // the answer was written before the help
	}
	ts.Check(in.Close())
	ts.Check(cmd.Wait())
}

func size(ts *testscript.TestScript, f *os.File) int64 {
	info, err := f.Stat()
	ts.Check(err)
	return info.Size()
}

func scriptAppears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: appears FILE")
	}
	const patience = 30 * time.Second
	for start := time.Now(); time.Since(start) < patience; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear", args[0])
}

func scriptHas(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: has FILE KEY...")
	}
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	values := 0
	for {
		var v any
		err := d.Decode(&v)
		if err == io.EOF {
			break
		}
		if err != nil {
			ts.Fatalf("%s: %v", args[0], err)
		}
		values++
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		object, ok := v.(map[string]any)
		if !ok {
			ts.Fatalf("%s: expected an object, found %v", args[0], v)
		}
		for _, key := range args[1:] {
			if _, ok := object[key]; !ok {
				ts.Fatalf("%s: expected the key %s, found %v", args[0], key, object)
			}
		}
	}
	if values == 0 {
		ts.Fatalf("%s: expected JSON, found nothing", args[0])
	}
}
