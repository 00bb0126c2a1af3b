package checkpoint

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestGGUF: models as llama.cpp keeps them are those of transformers, bit for bit,
// the order of rows, the names and what config.json says of them.
func TestGGUF(t *testing.T) {
	files, err := filepath.Glob("testdata/gguf/*.gguf")
	if err != nil || len(files) < 7 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			stem := strings.TrimSuffix(path, ".gguf")
			d, err := OpenDir(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = d.Close() })
			equalWeights(t, d.Weights, open(t, stem+".safetensors"), false)
			data, err := os.ReadFile(stem + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var want, got map[string]any
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(d.Config.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			for key, v := range want {
				if !reflect.DeepEqual(got[key], v) {
					t.Errorf("%s: found %v, expected %v", key, got[key], v)
				}
			}
		})
	}
}

// equalWeights compares the values of two checkpoints, rounded to half where the
// second was.
func equalWeights(t *testing.T, got, want *Reader, half bool) {
	t.Helper()
	if len(got.Names()) != len(want.Names()) || len(want.Names()) == 0 {
		t.Errorf("found %d tensors, expected %d", len(got.Names()), len(want.Names()))
	}
	for _, name := range want.Names() {
		tensor, ok := got.Tensor(name)
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		a, b := float32Of(t, tensor), float32s(t, want, name)
		if len(a) != len(b) {
			t.Errorf("%s: %d elements, expected %d", name, len(a), len(b))
			continue
		}
		for i, v := range a {
			if half {
				v = float16to32(float32to16(v))
			}
			if math.Float32bits(v) != math.Float32bits(b[i]) {
				t.Errorf("%s: element %d is %g, expected %g", name, i, v, b[i])
				break
			}
		}
	}
}

// TestGGUFReal compares real files with the directories that the peers made of them:
// MLPFUSION_GGUF is FILE=DIRECTORY[,…].
func TestGGUFReal(t *testing.T) {
	pairs := os.Getenv("MLPFUSION_GGUF")
	if pairs == "" {
		t.Skip("MLPFUSION_GGUF is not set")
	}
	for _, pair := range strings.Split(pairs, ",") {
		file, dir, _ := strings.Cut(pair, "=")
		d, err := OpenDir(file)
		if err != nil {
			t.Fatal(err)
		}
		want := open(t, dir)
		first, _ := want.Tensor(want.Names()[0])
		equalWeights(t, d.Weights, want, first.DType == F16)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Any part of a tensor is read alike: of quantized ones, some of whose bytes are in
// the middle of a block, and of those whose rows lie in another order.
func TestGGUFParts(t *testing.T) {
	d, err := OpenDir("testdata/gguf/llama.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	for _, name := range []string{"model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"} {
		tensor, _ := d.Weights.Tensor(name)
		whole := stored(t, tensor)
		for _, n := range []int{1, 5, 127, 4096} {
			part := make([]byte, n)
			for at := 0; at+n <= len(whole); at += n + len(whole)/50 {
				if err := tensor.readAt(part, at); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(part, whole[at:at+n]) {
					t.Fatalf("%s: %d bytes from %d on differ", name, n, at)
				}
			}
		}
	}
}

// A file made of a GGUF one carries the tokenizer.
func TestGGUFCarried(t *testing.T) {
	d, err := OpenDir("testdata/gguf/llama.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	o, err := CreateOutput(filepath.Join(t.TempDir(), "out"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Abort()
	if err := o.Carry(d.Path, d.Carry); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(o.Dir, ggufTokenizer))
	if err != nil || info.Size() > 4096 {
		t.Errorf("%v bytes of metadata: %v", info, err)
	}
}

func TestGGUFErrors(t *testing.T) {
	whole, err := os.ReadFile("testdata/gguf/llama.gguf")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	for _, c := range []struct{ from, to, say string }{
		{"general.architecture", "general.architecturE", "general.architecture: expected the name of an architecture, found none"},
		{"llama.attention.head_count\x04", "llama.attention.head_counT\x04", "llama.attention.head_count: expected a number of at least 1, found 0"},
		{"blk.0.ffn_gate.weight", "blk.0.ffn_gute.weight", `tensor "blk.0.ffn_gute.weight": expected no such tensor in a llama model`},
		{"blk.1.ffn_gate.weight", "blk.0.ffn_gate.weight", `tensor "blk.0.ffn_gate.weight" occurs twice`},
		{"token_embd.weight", "token_embD.weight", `tensor "token_embD.weight": expected no such tensor`},
		{"GGUF", "GGUG", "this is no GGUF file"},
	} {
		if err := os.WriteFile(path, bytes.Replace(whole, []byte(c.from), []byte(c.to), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDir(path); err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), c.say) {
			t.Errorf("found error %v, expected %s", err, c.say)
		}
	}
}

// FuzzGGUF: what is accepted can be read to its end.
func FuzzGGUF(f *testing.F) {
	for _, name := range []string{"llama", "qwen2", "gemma3", "phi3"} {
		data, err := os.ReadFile("testdata/gguf/" + name + ".gguf")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "model.gguf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := OpenDir(path)
		if err != nil {
			return
		}
		defer func() { _ = d.Close() }()
		for _, name := range d.Weights.Names() {
			tensor, _ := d.Weights.Tensor(name)
			float32Of(t, tensor)
		}
		if _, err := ParseConfig("config.json", d.Config.Bytes()); err != nil {
			t.Fatal(err)
		}
	})
}
