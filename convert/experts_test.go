package convert

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/fusion"
	"mlpfusion/internal/golden"
	"mlpfusion/model"
)

// TestExportExperts narrows decoders with mixtures to half and exports them: the names
// and keys are the original's, the widths their halves, the function the fused one's.
func TestExportExperts(t *testing.T) {
	for name, want := range map[string]map[string]int{
		"mixtral":         {"intermediate_size": 10},
		"mixtral-stacked": {"intermediate_size": 10},
		"qwen2-moe":       {"intermediate_size": 10, "moe_intermediate_size": 6, "shared_expert_intermediate_size": 14},
		"qwen3-moe":       {"intermediate_size": 10, "moe_intermediate_size": 5},
		"olmoe":           {"intermediate_size": 6},
		"granitemoe":      {"intermediate_size": 6},
		"deepseek-v2":     {"intermediate_size": 10, "moe_intermediate_size": 5},
		"deepseek-v3":     {"intermediate_size": 10, "moe_intermediate_size": 5},
	} {
		t.Run(name, func(t *testing.T) {
			from, dir := filepath.Join(testdata, name), t.TempDir()
			small, plain := filepath.Join(dir, "small"), filepath.Join(dir, "plain")
			fuse(t, from, small, FuseOptions{Plan: Plan{Ratio: 0.5}})
			logits := forward(t, small)
			r, err := Export(context.Background(), openDir(t, small), plain, ExportOptions{Pool: newPool(t), Sample: sample})
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(r.Widths, want) || r.Padded != 0 {
				t.Errorf("exported widths %v with %d dead units, want %v", r.Widths, r.Padded, want)
			}
			written, original := openDir(t, plain), openDir(t, filepath.Join(testdata, strings.TrimSuffix(name, "-stacked")))
			for key, width := range want {
				var v int
				if err := json.Unmarshal(written.Config.Raw(key), &v); err != nil || v != width {
					t.Errorf("config.json has %s %d, want %d", key, v, width)
				}
			}
			names := func(list []string) []string {
				for i := range list { // the router's, which transformers reads under both
					list[i] = strings.Replace(list[i], ".mlp.gate.", ".block_sparse_moe.gate.", 1)
				}
				return slices.Sorted(slices.Values(list))
			}
			if got, want := names(written.Weights.Names()), names(original.Weights.Names()); !slices.Equal(got, want) {
				t.Errorf("exported %v, want %v", got, want)
			}
			golden.Near(t, "logits after export", logits, forward(t, plain), 1e-4)
		})
	}
}

// TestStackInPart fuses some experts of a stack by themselves: the others stay what they
// are.
func TestStackInPart(t *testing.T) {
	for _, name := range []string{"mixtral-stacked", "granitemoe"} {
		src, err := model.Open(openDir(t, filepath.Join(testdata, name)))
		if err != nil {
			t.Fatal(err)
		}
		b := src.Blocks[1]
		values, err := src.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		one := []replacement{{block: b, form: b.Form, values: func() (map[string][]float32, error) { return values, nil }}}
		r := &rewriting{src: src, blocks: one, store: (&fuser{}).storage}
		if err := r.write(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), src.Dir.Config.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		golden.Near(t, name+": logits", forward(t, dir), forward(t, filepath.Join(testdata, name)), 0)
	}
}

// TestExpertMethods fuses a decoder with a shared expert by every method: what was
// written is a model, and exported the same one.
func TestExpertMethods(t *testing.T) {
	from := filepath.Join(testdata, "qwen2-moe")
	for _, method := range fusion.Names(func(m *fusion.Method) bool { return m.Name != "flap" }) { // that needs an output bias
		t.Run(method, func(t *testing.T) {
			dir := t.TempDir()
			small, plain := filepath.Join(dir, "small"), filepath.Join(dir, "plain")
			opt := FuseOptions{Plan: Plan{Ratio: 0.5}, Method: method}
			m, _ := fusion.Lookup(method)
			if m.Merges {
				opt.Ratio, opt.Fusion.Experts = 0, 4
			}
			if m.UsesTexts(opt.Fusion) {
				cal, err := NewCalibrator(context.Background(), newPool(t), openDir(t, from), &Texts{Name: "sample", Batches: []model.Input{*sample, *sample}})
				if err != nil {
					t.Fatal(err)
				}
				defer cal.Close()
				opt.Calibration = cal
			}
			fuse(t, from, small, opt)
			r, err := Export(context.Background(), openDir(t, small), plain, ExportOptions{Pool: newPool(t), Sample: sample, Pad: true})
			if err != nil {
				t.Fatal(err)
			}
			if !(r.Difference <= 1e-4) {
				t.Errorf("exported logits differ by %g", r.Difference)
			}
		})
	}
}

// TestExpertsPeer asks transformers what exported decoders compute whose experts were
// narrowed, merged, shared and dropped: what the compressed ones do.
func TestExpertsPeer(t *testing.T) {
	python := os.Getenv("MLPFUSION_PYTHON")
	if python == "" {
		t.Skip("MLPFUSION_PYTHON is not set: make test-peers sets it")
	}
	dir, want := t.TempDir(), map[string][]float32{}
	for _, c := range []struct {
		method string
		opt    fusion.Options
		ratio  float64
	}{{"fusion", fusion.Options{}, 0.5}, {"calibrated", fusion.Options{}, 0.5}, {"shared", fusion.Options{}, 0.5}, {"mc-smoe", fusion.Options{Experts: 3}, 0},
		{"hc-smoe", fusion.Options{Experts: 3}, 0}, {"reap", fusion.Options{Experts: 3}, 0}, {"dern", fusion.Options{Experts: 3}, 0}} {
		for _, name := range []string{"mixtral", "qwen3-moe", "olmoe", "granitemoe", "deepseek-v2"} {
			from, small, plain := filepath.Join(testdata, name), filepath.Join(dir, c.method, name, "small"), filepath.Join(dir, c.method, name, "plain")
			opt := FuseOptions{Method: c.method, Fusion: c.opt, Plan: Plan{Ratio: c.ratio}}
			done, err := opt.Calibrate(t.Context(), newPool(t), openDir(t, from), &Texts{Batches: []model.Input{{IDs: sample.IDs, Offsets: sample.Offsets}}}, false)
			if err != nil {
				t.Fatal(err)
			}
			fuse(t, from, small, opt)
			done()
			if _, err := Export(t.Context(), openDir(t, small), plain, ExportOptions{Pool: newPool(t), Sample: sample, Pad: true}); err != nil {
				t.Fatal(err)
			}
			want[plain] = forward(t, small)
		}
	}
	var texts [][]int32
	for i, from := range sample.Offsets[:len(sample.Offsets)-1] {
		texts = append(texts, sample.IDs[from:sample.Offsets[i+1]])
	}
	ids, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	folders := slices.Sorted(maps.Keys(want))
	cmd := exec.Command(python, append([]string{filepath.Join("..", "scripts", "peers", "mixtures.py"), "logits", string(ids)}, folders...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string][]float32
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		golden.Near(t, folder+": logits in transformers", want[folder], got[folder], 1e-4)
	}
}
