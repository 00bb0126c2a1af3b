package convert

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/internal/golden"
)

// writeT5 writes a checkpoint with the tensors of a T5's MLPs and one other, of
// recognisable values.
func writeT5(t *testing.T, dir, prefix, config string) {
	t.Helper()
	specs := []checkpoint.Spec{{Name: prefix + "shared.weight", DType: checkpoint.F32, Shape: []int{3, 2}}}
	if prefix != "" {
		specs = append(specs, checkpoint.Spec{Name: "classification_head.dense.weight", DType: checkpoint.F32, Shape: []int{2, 2}})
	}
	for _, mlp := range []string{"encoder.block.0.layer.1", "encoder.block.1.layer.1", "decoder.block.0.layer.2", "decoder.block.1.layer.2"} {
		mlp = prefix + mlp
		specs = append(specs, checkpoint.Spec{Name: mlp + ".DenseReluDense.wi.weight", DType: checkpoint.F32, Shape: []int{4, 2}},
			checkpoint.Spec{Name: mlp + ".DenseReluDense.wo.weight", DType: checkpoint.BF16, Shape: []int{2, 4}})
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	w, err := checkpoint.Create(dir, specs, checkpoint.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for i, s := range specs {
		v := make([]float32, s.Shape[0]*s.Shape[1])
		for j := range v {
			v[j] = float32(i*8 + j - 20)
		}
		if err := w.WriteFloat32(s.Name, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
}

// read returns a tensor's values.
func read(t testing.TB, d *checkpoint.Dir, name string) []float32 {
	t.Helper()
	x, ok := d.Weights.Tensor(name)
	if !ok {
		t.Fatalf("%s has no %s, only %v", d.Path, name, d.Weights.Names())
	}
	v := make([]float32, x.Elements())
	if err := x.ReadFloat32(v); err != nil {
		t.Fatal(err)
	}
	return v
}

const t5Config = `{"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 2, "d_ff": 4, "num_layers": 2, "feed_forward_proj": "relu", "tie_word_embeddings": true}`

func TestUpcycle(t *testing.T) {
	from, out := filepath.Join(t.TempDir(), "t5"), filepath.Join(t.TempDir(), "moe")
	writeT5(t, from, "", t5Config)
	src := openDir(t, from)
	r, err := Upcycle(context.Background(), src, out, UpcycleOptions{Experts: 4, RouterStd: 0.1, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"decoder.block.1.layer.2.mlp", "encoder.block.1.layer.1.mlp"}; !slices.Equal(r.Layers, want) {
		t.Errorf("sparse layers %v, want %v", r.Layers, want)
	}
	made := openDir(t, out)
	values := func(d *checkpoint.Dir, name string) []float32 { return read(t, d, name) }
	check := func(name, from string, scale float32) {
		t.Helper()
		want := values(src, from)
		for i := range want {
			want[i] *= scale
		}
		if got := values(made, name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	check("shared.weight", "shared.weight", 1)
	for stack, at := range map[string]string{"encoder": "1", "decoder": "2"} {
		for layer, base := range map[string]string{"0": "mlp", "1": "mlp.experts.expert_3"} {
			block, scale := stack+".block."+layer+".layer."+at, float32(1)
			if layer == "1" {
				scale = 4
			}
			check(block+"."+base+".wi.weight", block+".DenseReluDense.wi.weight", 1)
			check(block+"."+base+".wo.weight", block+".DenseReluDense.wo.weight", scale)
		}
		router := values(made, stack+".block.1.layer."+at+".mlp.router.classifier.weight")
		if len(router) != 8 || router[0] == 0 || router[0] == router[1] {
			t.Errorf("%s: router %v, want 8 random values", stack, router)
		}
	}
	for key, want := range map[string]int{"num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "expert_capacity": 512, "d_ff": 4} {
		if got, err := made.Config.Int(key); err != nil || got != want {
			t.Errorf("config: %s %d (%v), want %d", key, got, err, want)
		}
	}
	if made.Config.Has("feed_forward_proj") {
		t.Error("config: feed_forward_proj is still there")
	}
	// All layers sparse, with noise: the same bytes for the seed, others for another.
	again := func(seed uint64) map[string][]byte {
		dir := filepath.Join(t.TempDir(), "moe")
		if _, err := Upcycle(context.Background(), src, dir, UpcycleOptions{Experts: 3, Every: 1, Noise: 0.1, RouterStd: 0.1, Seed: seed}); err != nil {
			t.Fatal(err)
		}
		return files(t, dir)
	}
	one, two, other := again(1), again(1), again(2)
	if string(one["model.safetensors"]) != string(two["model.safetensors"]) || string(one["model.safetensors"]) == string(other["model.safetensors"]) {
		t.Error("the weights are not a function of the seed")
	}
}

// TestUpcycleLabelled checks that a T5 with a label head gives a Switch model with
// one, under the names that such a model has here.
func TestUpcycleLabelled(t *testing.T) {
	from, out := filepath.Join(t.TempDir(), "t5"), filepath.Join(t.TempDir(), "moe")
	writeT5(t, from, "transformer.", t5Config)
	if _, err := Upcycle(context.Background(), openDir(t, from), out, UpcycleOptions{Experts: 2}); err != nil {
		t.Fatal(err)
	}
	made := openDir(t, out)
	for _, name := range []string{"shared.weight", "classification_head.dense.weight", "encoder.block.0.layer.1.mlp.wi.weight", "decoder.block.1.layer.2.mlp.experts.expert_1.wo.weight"} {
		if _, ok := made.Weights.Tensor(name); !ok {
			t.Errorf("no tensor %s, only %v", name, made.Weights.Names())
		}
	}
	if a, err := made.Config.Strings("architectures"); err != nil || !slices.Equal(a, []string{"SwitchTransformersForSequenceClassification"}) {
		t.Errorf("architectures %v (%v)", a, err)
	}
}

func TestUpcycleRefusals(t *testing.T) {
	good := UpcycleOptions{Experts: 4}
	for _, c := range []struct {
		name, config string
		with         func(o *UpcycleOptions)
		want         string
	}{
		{"no T5", `{"model_type": "bert"}`, nil, `config.json: model_type: expected llama, mistral, qwen3, t5, found "bert"`},
		{"no type", `{}`, nil, `config.json: model_type: expected llama, mistral, qwen3, t5, found nothing`},
		{"gated", strings.Replace(t5Config, `"relu"`, `"gated-gelu"`, 1), nil, `expected an MLP without a gate, as Switch Transformers has, found "gated-gelu"`},
		{"fused", strings.Replace(t5Config, `{`, `{"mlpfusion": {"version": 1},`, 1), nil, "expected an original model"},
		{"no layers", strings.Replace(t5Config, `"num_layers"`, `"layers"`, 1), nil, `key "num_layers": expected a whole number, found no such key`},
		{"no such distance", t5Config, func(o *UpcycleOptions) { o.Every = 3 }, "every: expected a distance"},
		{"one expert", t5Config, func(o *UpcycleOptions) { o.Experts = 1 }, "experts: expected 2 to 65536, found 1"},
		{"negative noise", t5Config, func(o *UpcycleOptions) { o.Noise = -1 }, "noise: expected a number of at least 0, found -1"},
		{"NaN", t5Config, func(o *UpcycleOptions) { o.RouterStd = math.NaN() }, "router-std: expected"},
		{"capacity", t5Config, func(o *UpcycleOptions) { o.Capacity = -1 }, "capacity: expected a number above 0, found -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, out := filepath.Join(t.TempDir(), "t5"), filepath.Join(t.TempDir(), "moe")
			writeT5(t, from, "", c.config)
			o := good
			if c.with != nil {
				c.with(&o)
			}
			if _, err := Upcycle(context.Background(), openDir(t, from), out, o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("something was written")
			}
		})
	}
}

// TestUpcyclePeer asks transformers: with routers of zeros the Switch model is
// the T5 it was made of. Where compressing experts together changes nothing, as
// sharing all units and merging copies do, what is exported is that model too.
func TestUpcyclePeer(t *testing.T) {
	python := os.Getenv("MLPFUSION_PYTHON")
	if python == "" {
		t.Skip("MLPFUSION_PYTHON is not set: make test-peers sets it")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command(python, append([]string{filepath.Join("..", "scripts", "peers", "upcycle.py")}, args...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	compare := func(from, to string, tol float64, most int) {
		t.Helper()
		var got struct {
			Difference float64
			Tokens     []int
		}
		if err := json.Unmarshal(run("compare", at(from), at(to)), &got); err != nil {
			t.Fatal(err)
		}
		all := 0
		for _, n := range got.Tokens {
			all += n
		}
		if !(got.Difference <= tol) || 100*slices.Max(got.Tokens) > most*all {
			t.Errorf("%s: logits differ by %g from those of %s, tokens %v", to, got.Difference, from, got.Tokens)
		}
		t.Logf("%s: logits differ by %.1e from those of %s, tokens %v", to, got.Difference, from, got.Tokens)
	}
	upcycle := func(to string, o UpcycleOptions) {
		t.Helper()
		o.Seed = 1
		if _, err := Upcycle(context.Background(), openDir(t, at("t5")), at(to), o); err != nil {
			t.Fatal(err)
		}
	}
	run("make", at("t5"))
	const rounding = 1e-6
	upcycle("exact", UpcycleOptions{Experts: 4})
	compare("t5", "exact", rounding, 100)
	upcycle("all", UpcycleOptions{Experts: 8, Every: 1})
	compare("t5", "all", rounding, 100)
	upcycle("spread", UpcycleOptions{Experts: 4, RouterStd: 1e-3})
	compare("t5", "spread", 1e-2, 60)

	upcycle("apart", UpcycleOptions{Experts: 4, RouterStd: 1e-3, Noise: 0.5})
	in := *sample
	in.Types, in.DecoderIDs, in.DecoderOffsets = nil, []int32{0, 9, 8, 0, 7, 0}, []int32{0, 3, 5, 6}
	for from, opt := range map[string]FuseOptions{
		"apart":  {Method: "shared", Plan: Plan{Ratio: 4}},
		"spread": {Method: "mc-smoe", Fusion: fusion.Options{Experts: 1}, Calibration: randomInputs{32}},
	} {
		fuse(t, at(from), at(from+" fused"), opt)
		if _, err := Export(context.Background(), openDir(t, at(from+" fused")), at(from+" exported"), ExportOptions{Pool: newPool(t), Sample: &in}); err != nil {
			t.Fatal(err)
		}
		compare(from, from+" exported", rounding, 60)
	}
}

// TestUpcycleDecoder: of a decoder whose experts' weights sum to 1, exact copies compute
// what the dense model does, whatever the router says; noise and units drawn anew set the
// experts apart.
func TestUpcycleDecoder(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, from, to, mixture, gate, down string
		o                                   UpcycleOptions
		same                                bool
		differ                              int // rows of an expert's first matrix that are not the dense one's
	}{
		{"copies", "llama-3", "mixtral", "block_sparse_moe", "w1", "w2", UpcycleOptions{Experts: 4, TopK: 2, RouterStd: 1}, true, 0},
		{"drop", "llama-3", "mixtral", "block_sparse_moe", "w1", "w2", UpcycleOptions{Experts: 4, RouterStd: 1, Drop: 0.5}, false, 24},
		{"qwen copies", "qwen3", "qwen3_moe", "mlp", "gate_proj", "down_proj", UpcycleOptions{Experts: 4, TopK: 2, RouterStd: 1}, true, 0},
		{"qwen drop", "qwen3", "qwen3_moe", "mlp", "gate_proj", "down_proj", UpcycleOptions{Experts: 4, RouterStd: 1, Drop: 0.5}, false, 24},
	} {
		out := filepath.Join(dir, c.name)
		from := filepath.Join(testdata, c.from)
		r, err := Upcycle(context.Background(), openDir(t, from), out, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if layers, err := openDir(t, from).Config.Int("num_hidden_layers"); r.Family != c.to || err != nil || len(r.Layers) != layers {
			t.Errorf("%s: %+v", c.name, r)
		}
		got, want := forward(t, out), forward(t, from)
		if difference := golden.Largest(got, want); c.same != (difference <= 1e-5) {
			t.Errorf("%s: logits differ by %g", c.name, difference)
		}
		made, dense := openDir(t, out), openDir(t, from)
		columns := func(d *checkpoint.Dir, name string) ([]float32, int) {
			x, _ := d.Weights.Tensor(name)
			return read(t, d, name), x.Shape[1]
		}
		var drawn [2][]int
		for e := range drawn {
			a, cols := columns(made, "model.layers.1."+c.mixture+".experts."+itoa(e)+"."+c.gate+".weight")
			b, _ := columns(dense, "model.layers.1.mlp.gate_proj.weight")
			down, units := columns(made, "model.layers.1."+c.mixture+".experts."+itoa(e)+"."+c.down+".weight")
			was, _ := columns(dense, "model.layers.1.mlp.down_proj.weight")
			for k := range units {
				changed := !slices.Equal(a[k*cols:(k+1)*cols], b[k*cols:(k+1)*cols])
				if changed != (down[k] != was[k]) {
					t.Errorf("%s: unit %d of expert %d is drawn anew in one matrix alone", c.name, k, e)
				}
				if changed {
					drawn[e] = append(drawn[e], k)
				}
			}
		}
		if len(drawn[0]) != c.differ || c.differ > 0 && slices.Equal(drawn[0], drawn[1]) {
			t.Errorf("%s: units %v are drawn anew, want %d, others in each expert", c.name, drawn, c.differ)
		}
	}
	for _, c := range []struct {
		o    UpcycleOptions
		want string
	}{
		{UpcycleOptions{Experts: 4, Every: 2}, "every and capacity: expected with t5, found llama"},
		{UpcycleOptions{Experts: 4, TopK: 5}, "top-k: expected 1 to the 4 experts, found 5"},
		{UpcycleOptions{Experts: 4, Drop: 1.5}, "drop: expected a share of 0 to 1, found 1.5"},
	} {
		if _, err := Upcycle(context.Background(), openDir(t, filepath.Join(testdata, "llama-3")), filepath.Join(dir, "x"), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}
