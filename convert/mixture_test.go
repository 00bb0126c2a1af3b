package convert

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/internal/golden"
	"mlpfusion/model"
)

// switchConfig has three experts in layer 1 of each stack and a label head.
const switchConfig = `{"architectures": ["SwitchTransformersForSequenceClassification"], "model_type": "switch_transformers",
	"d_model": 8, "d_kv": 4, "d_ff": 12, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2, "vocab_size": 96,
	"num_experts": 3, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "expert_capacity": 64, "decoder_start_token_id": 0}`

// randomModel writes a checkpoint of the configuration with random weights.
func randomModel(t testing.TB, config string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	cfg, err := model.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	stated, _, err := model.Describe(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	var specs []checkpoint.Spec
	for _, s := range stated {
		specs = append(specs, checkpoint.Spec{Name: s.Name, DType: checkpoint.F32, Shape: s.Shape})
	}
	w, err := checkpoint.Create(dir, specs, checkpoint.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range specs {
		n := 1
		for _, d := range s.Shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(0.5 * r.NormFloat64())
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
	return dir
}

// randomInputs is a Calibration of random inputs, others for each block.
type randomInputs struct{ hidden int }

func (r randomInputs) Inputs(block int) (fusion.Inputs, error) { return noise{r.hidden, block}, nil }
func (r randomInputs) Mixture(block int) (fusion.RoutedInputs, error) {
	return noise{r.hidden, block}, nil
}
func (randomInputs) Rewind()                     {}
func (randomInputs) Watch(func(done, total int)) {}
func (randomInputs) Tokens() int64               { return 0 }
func (randomInputs) Replace(int, func() (*fusion.Block, error)) error {
	return nil
}

type noise struct{ hidden, seed int }

func (n noise) Each(f func(x []float32, tokens int) error) error {
	r := rand.New(rand.NewPCG(uint64(n.seed), 3))
	x := make([]float32, 20*n.hidden)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return f(x, 20)
}

// EachRouted sends every second token to expert 0, the others to expert 1.
func (n noise) EachRouted(f func(x []float32, experts []int32, weights []float32, tokens int) error) error {
	return n.Each(func(x []float32, tokens int) error {
		experts, weights := make([]int32, tokens), slices.Repeat([]float32{1}, tokens)
		for i := range experts {
			experts[i] = int32(i % 2)
		}
		return f(x, experts, weights, tokens)
	})
}

// TestMixtures fuses a mixture of experts by every method, loads the result,
// exports it with one width and compares logits.
func TestMixtures(t *testing.T) {
	from := randomModel(t, switchConfig)
	for _, method := range append(fusion.Names(nil), "mc-smoe at full width") {
		if m, err := fusion.Lookup(method); method == "flap" || err == nil && m.Drops {
			continue // is for blocks with an output bias; TestDrop has these
		}
		t.Run(method, func(t *testing.T) {
			method, full := strings.CutSuffix(method, " at full width")
			dir := t.TempDir()
			small, plain := filepath.Join(dir, "small"), filepath.Join(dir, "plain")
			opt := FuseOptions{Plan: Plan{Layers: "paper", Width: 5}, Method: method, Calibration: randomInputs{8}}
			if strings.HasSuffix(method, "smoe") {
				opt.Fusion.Experts = 2
			}
			if full {
				opt.Width = 0
			}
			r := fuse(t, from, small, opt)
			if len(r.Layers) != 6 {
				t.Errorf("%d blocks were compressed, want the 6 experts", len(r.Layers))
			}
			logits := forward(t, small)
			if _, err := Export(context.Background(), openDir(t, small), plain, ExportOptions{Pool: newPool(t), Sample: sample, Pad: true}); err != nil {
				t.Fatal(err)
			}
			golden.Near(t, "logits after export", forward(t, plain), logits, 1e-4)
			if openDir(t, plain).Weights.Names() == nil || len(openDir(t, plain).Weights.Names()) != len(openDir(t, from).Weights.Names()) {
				t.Errorf("exported tensors %v, want those of the original", openDir(t, plain).Weights.Names())
			}
			again := filepath.Join(dir, "again")
			opt.Threads = 1
			fuse(t, from, again, opt)
			sameFiles(t, small, again)
		})
	}
}

// TestSharedUnits checks what a checkpoint says of shared units, up to more of
// them than an expert has: at as many as there are nothing changes.
func TestSharedUnits(t *testing.T) {
	from := randomModel(t, switchConfig)
	for _, width := range []int{7, 20, 36} {
		small := filepath.Join(t.TempDir(), "small")
		fuse(t, from, small, FuseOptions{Plan: Plan{Width: width}, Method: "shared"})
		c, err := Inspect(openDir(t, small))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.Blocks {
			if b.Router == "" {
				continue
			}
			first := strings.TrimSuffix(b.Name, b.Name[len(b.Name)-1:]) + "0"
			parameters, weights := 2*8*width, ""
			if b.Name != first {
				parameters, weights = 0, first
			}
			units := 0
			for _, n := range b.Sizes {
				units += n
			}
			if b.Parameters != parameters || b.Weights != weights || units != 12 || b.FLOPs != 4*8*len(b.Sizes) {
				t.Errorf("width %d: %s has %d parameters, the weights of %q, clusters %v and %d FLOPs", width, b.Name, b.Parameters, b.Weights, b.Sizes, b.FLOPs)
			}
		}
		if width == 36 {
			golden.Near(t, "logits with all units shared", forward(t, small), forward(t, from), 1e-5)
		}
	}
}

// TestMixtureResume stops a run after its first mixture and goes on.
func TestMixtureResume(t *testing.T) {
	from := randomModel(t, switchConfig)
	for _, method := range fusion.Names(func(m *fusion.Method) bool { return m.Mixtures }) {
		dir := t.TempDir()
		whole, parts := filepath.Join(dir, "whole"), filepath.Join(dir, "parts")
		opt := FuseOptions{Plan: Plan{Layers: "paper", Width: 5}, Method: method, Calibration: randomInputs{8}}
		fuse(t, from, whole, opt)
		ctx, cancel := context.WithCancel(context.Background())
		opt.Fusion.Clustering = "ward"
		opt.Progress = func(s Step) {
			if s.Done {
				cancel()
			}
		}
		if _, err := Fuse(ctx, openDir(t, from), parts, opt); err == nil {
			t.Fatal("a stopped run ended well")
		}
		kept := 0
		opt.Resume, opt.Progress = true, func(s Step) {
			if s.Kept {
				kept++
			}
		}
		if _, err := Fuse(context.Background(), openDir(t, from), parts, opt); err != nil || kept != 3 {
			t.Fatalf("%s: %d blocks taken from the stopped run (%v), want the 3 experts of a layer", method, kept, err)
		}
		sameFiles(t, whole, parts)
	}
}

func TestMixtureRefusals(t *testing.T) {
	moe := randomModel(t, switchConfig)
	for _, c := range []struct {
		from string
		opt  FuseOptions
		want string
	}{
		{moe, FuseOptions{Method: "shared", Fusion: fusion.Options{Experts: 2}}, "method shared: experts: expected with a method that merges experts"},
		{moe, FuseOptions{Method: "fusion", Fusion: fusion.Options{Experts: 2}}, "method fusion: experts: expected with a method that merges experts"},
		{moe, FuseOptions{Method: "shared", Budget: 0.5}, "found a budget"},
		{moe, FuseOptions{Method: "shared", Plan: Plan{Width: 37}}, "width: expected 1 to the 36 units of encoder.block.1.layer.1.mlp.experts.expert_0, found 37"},
		{moe, FuseOptions{Method: "shared", Plan: Plan{Ratio: 3.1}}, "ratio: expected a number above 0 and at most 3, found 3.1"},
		{moe, FuseOptions{Method: "mc-smoe"}, "expected calibration texts, found none"},
		{moe, FuseOptions{Method: "hc-smoe", Fusion: fusion.Options{Experts: 4}, Calibration: randomInputs{8}}, "experts to keep: expected 1 to 3, the layer's own number, found 4"},
		{moe, FuseOptions{Method: "mc-smoe", Calibration: randomInputs{8}, Plan: Plan{Width: 13}}, "width: expected 1 to the 12 units"},
		{moe, FuseOptions{Method: "shared", Plan: Plan{Layers: "0"}}, "expected mixtures of experts in the chosen layers, found none"},
		{filepath.Join(testdata, "bert"), FuseOptions{Method: "shared"}, "expected mixtures of experts in the chosen layers, found none"},
	} {
		out := filepath.Join(t.TempDir(), "small")
		if _, err := Fuse(context.Background(), openDir(t, c.from), out, c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.opt.Method, err, c.want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Error("something was written")
		}
	}
	small := filepath.Join(t.TempDir(), "small")
	fuse(t, moe, small, FuseOptions{Plan: Plan{Width: 7}, Method: "shared"})
	if _, err := Fuse(context.Background(), openDir(t, small), small+"2", FuseOptions{Method: "fusion"}); err == nil || !strings.Contains(err.Error(), "not compressed yet") {
		t.Errorf("fusing twice: error %v", err)
	}
	// A checkpoint that is tied in a way that cannot be.
	text, err := os.ReadFile(filepath.Join(small, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	name := func(e int) string { return fmt.Sprintf("encoder.block.1.layer.1.mlp.experts.expert_%d", e) }
	for from, to := range map[string]string{
		`"weights": "` + name(0): `"weights": "` + name(1),
		`"width": 7`:             `"width": 0`,
	} {
		changed := strings.Replace(string(text), from, to, 1)
		if err := os.WriteFile(filepath.Join(small, "config.json"), []byte(changed), 0o666); err != nil {
			t.Fatal(err)
		}
		d, err := checkpoint.OpenDir(small)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := model.Load(d, model.LoadOptions{NewHead: true}); changed == string(text) || err == nil {
			t.Errorf("loaded with %s in place of %s", to, from)
		}
		d.Close()
	}
}

// TestBudgetOfExperts: without usage the experts of a mixture get one width.
func TestBudgetOfExperts(t *testing.T) {
	r := fuse(t, filepath.Join(testdata, "qwen2-moe"), filepath.Join(t.TempDir(), "small"), FuseOptions{Method: "fusion", Budget: 0.4, BudgetOf: fusion.Params})
	widths := map[string][]int{}
	for name, l := range r.Layers {
		mixture, _, _ := strings.Cut(name, ".experts.")
		if !slices.Contains(widths[mixture], l.Width) {
			widths[mixture] = append(widths[mixture], l.Width)
		}
	}
	if len(widths) < 3 {
		t.Errorf("widths of %d blocks", len(widths))
	}
	for mixture, w := range widths {
		if len(w) != 1 {
			t.Errorf("%s: experts of %v units", mixture, w)
		}
	}
}

// TestBudgetByUsage divides a budget of parameters and one of FLOPs among experts:
// it is kept and spent, and experts that see more tokens get more units.
func TestBudgetByUsage(t *testing.T) {
	from := randomModel(t, switchConfig)
	usage := []RouterUse{
		{Usage: model.Usage{Name: "encoder.block.1.layer.1.mlp", Tokens: []int64{900, 90, 10}}},
		{Usage: model.Usage{Name: "decoder.block.1.layer.2.mlp", Tokens: []int64{0, 500, 500}}},
	}
	const step = 1 // of widths: 32nds of 12 units are units
	for _, cost := range []fusion.Cost{fusion.Params, fusion.FLOPs} {
		r := fuse(t, from, filepath.Join(t.TempDir(), "small"), FuseOptions{Plan: Plan{Layers: "paper"}, Method: "fusion", Budget: 0.5, BudgetOf: cost, Usage: usage})
		spent, all := 0.0, 0.0
		width := map[string][]int{}
		for _, u := range usage {
			for e, n := range u.Tokens {
				share := 1.0
				if cost == fusion.FLOPs {
					share = float64(n+1) / float64(u.All()+3)
				}
				w := 12
				if l, ok := r.Layers[fmt.Sprintf("%s.experts.expert_%d", u.Name, e)]; ok {
					w = l.Width
				}
				width[u.Name] = append(width[u.Name], w)
				spent += share * float64(w)
				all += share * 12
			}
		}
		if !(spent <= 0.5*all+0.1) || !(spent >= 0.5*all-step) {
			t.Errorf("budget of %v: %g units of %g spent in %v", cost, spent, all, width)
		}
		if w := width[usage[0].Name]; cost == fusion.Params && (w[0] <= w[1] || w[1] < w[2]) {
			t.Errorf("widths %v for tokens %v", w, usage[0].Tokens)
		}
		if w := width[usage[1].Name]; cost == fusion.Params && w[0] != 1 {
			t.Errorf("an expert without tokens keeps %d units", w[0])
		}
	}
}

// TestRouters counts what routers do, alone and beside the original.
func TestRouters(t *testing.T) {
	from := randomModel(t, switchConfig)
	load := func() *model.Model {
		m, _, err := model.Load(openDir(t, from), model.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m, pool := load(), newPool(t)
	uses, err := Routers(context.Background(), pool, m, load(), []model.Input{*sample, *sample}, nil)
	if err != nil {
		t.Fatal(err)
	}
	src, err := model.Open(openDir(t, from))
	if err != nil {
		t.Fatal(err)
	}
	if fromDisk, err := Routers(context.Background(), pool, src, m, []model.Input{*sample, *sample}, nil); err != nil || !reflect.DeepEqual(fromDisk, uses) {
		t.Errorf("a layer at a time: %+v and %v, want %+v", fromDisk, err, uses)
	}
	if len(uses) != 2 {
		t.Fatalf("%d mixtures, want 2", len(uses))
	}
	for i, u := range uses {
		// Both batches have 12 tokens for the encoder and 3, a start each, for the decoder.
		if want := int64([]int{24, 6}[i]); u.All() != want || u.Same != want || u.Original.All() != want || !slices.Equal(u.Tokens, u.Original.Tokens) {
			t.Errorf("%s: %+v beside %+v, want %d tokens", u.Name, u, *u.Original, want)
		}
	}
	if _, err := Routers(context.Background(), pool, m, nil, []model.Input{{IDs: []int32{96}, Offsets: []int32{0, 1}}}, nil); err == nil {
		t.Error("an id beyond the vocabulary went through")
	}
	bert, _, err := model.Load(openDir(t, filepath.Join(testdata, "bert")), model.LoadOptions{NewHead: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Routers(context.Background(), pool, m, bert, nil, nil); err == nil || !strings.Contains(err.Error(), "found one with 0 mixtures") {
		t.Errorf("beside a model without mixtures: error %v", err)
	}
}
