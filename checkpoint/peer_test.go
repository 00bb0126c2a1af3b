package checkpoint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// python runs a script by the Python of the peers' environment, or skips.
func python(t *testing.T, script string, args ...string) string {
	t.Helper()
	interpreter := os.Getenv("MLPFUSION_PYTHON")
	if interpreter == "" {
		t.Skip("MLPFUSION_PYTHON is not set")
	}
	cmd := exec.Command(interpreter, append([]string{"-c", script}, args...)...)
	// Python takes an empty variable as a value, not as none.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HF_") && strings.HasSuffix(v, "=") }), "HF_HUB_OFFLINE=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// transformers loads our shards of every storage type, with the same values.
func TestPeerLoadsShards(t *testing.T) {
	r := open(t, "testdata/golden/single")
	root := t.TempDir()
	for dtype, torch := range map[DType]string{F32: "float32", F16: "float16", BF16: "bfloat16"} {
		dir := filepath.Join(root, torch)
		var specs []Spec
		for _, name := range r.Names() {
			tensor, _ := r.Tensor(name)
			specs = append(specs, Spec{name, dtype, tensor.Shape})
		}
		config, err := os.ReadFile("testdata/golden/single/config.json")
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "config.json"), string(config))
		w, err := Create(dir, specs, WriteOptions{MaxShardBytes: 2000, Metadata: map[string]string{"format": "pt"}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		for _, name := range r.Names() {
			if err := w.WriteFloat32(name, float32s(t, r, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	out := python(t, `
import pathlib, sys, torch, transformers
from safetensors.torch import load_file
transformers.logging.set_verbosity_error()
want = load_file(sys.argv[2] + "/model.safetensors")
for dir in pathlib.Path(sys.argv[1]).iterdir():
    dtype = getattr(torch, dir.name)
    model, info = transformers.AutoModel.from_pretrained(dir, dtype=dtype, output_loading_info=True)
    got = model.state_dict()
    unequal = [k for k in want if got[k].dtype != dtype or not torch.equal(got[k], want[k].to(dtype))]
    wrong = [*(got.keys() ^ want.keys()), *unequal, *(k for v in info.values() for k in v)]
    print(dir.name, wrong)
`, root, "testdata/golden/single")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	if want := []string{"bfloat16 []", "float16 []", "float32 []"}; !slices.Equal(lines, want) {
		t.Errorf("differences: %q", lines)
	}
}

// huggingface_hub finds in its cache what Resolve fetched.
func TestPeerReadsHubCache(t *testing.T) {
	s := newStandIn(t)
	dir := s.resolve("org/name")
	out := python(t, `
import huggingface_hub as h
print(h.hf_hub_download("org/name", "model.safetensors"))
print(h.snapshot_download("org/name", local_files_only=True))
`)
	if want := []string{filepath.Join(dir, weightsFile), dir}; !slices.Equal(strings.Fields(out), want) {
		t.Errorf("Python finds %s, expected %s", out, fmt.Sprint(want))
	}
}

// The command that is told for a folder with pytorch_model.bin only works when
// followed: head and tokenizer are there.
func TestPeerFromPickle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's a model")
	python(t, `
import os, sys, torch, transformers as t
t.BertForSequenceClassification(t.BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3)).save_pretrained(sys.argv[1])
from safetensors.torch import load_file
w = sys.argv[1] + "/model.safetensors"
torch.save(load_file(w), sys.argv[1] + "/pytorch_model.bin")
os.remove(w)
open(sys.argv[1] + "/vocab.txt", "w").write("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
`, dir)
	_, err := OpenDir(dir)
	if err == nil {
		t.Fatal("a folder without safetensors was opened")
	}
	_, command, ok := strings.Cut(err.Error(), "in Python: python3 ")
	if !ok {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", os.Getenv("MLPFUSION_PYTHON")+" "+command)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if _, ok := d.Weights.Tensor("classifier.weight"); !ok || !slices.Contains(d.Carry, "vocab.txt") {
		t.Errorf("found the tensors %q and the files %q", d.Weights.Names(), d.Carry)
	}
}

// Python finds in the cache what was fetched, and nothing wrong with it.
func TestPeerReadsCache(t *testing.T) {
	s := newStandIn(t)
	s.files["1_Pooling/config.json"] = []byte("{}")
	dir := s.resolve("org/name")
	got := python(t, `
import huggingface_hub, sys
print(huggingface_hub.snapshot_download("org/name", local_files_only=True))
print(huggingface_hub.hf_hub_download("org/name", "1_Pooling/config.json", local_files_only=True))
scan = huggingface_hub.scan_cache_dir()
print([str(w) for w in scan.warnings], [len(r.files) for repo in scan.repos for r in repo.revisions])
`)
	if want := fmt.Sprintf("%s\n%s\n[] [%d]\n", dir, filepath.Join(dir, "1_Pooling", "config.json"), len(s.files)); got != want {
		t.Errorf("Python says\n%sexpected\n%s", got, want)
	}
}
