package convert

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/fusion"
	"mlpfusion/internal/golden"
	"mlpfusion/model"
)

// TestDrop drops experts: those that stay keep their weights and their routers' rows, under
// numbers without gaps, and config.json says how many there are and were.
func TestDrop(t *testing.T) {
	texts := &Texts{Batches: []model.Input{*sample}}
	texts.Batches[0].Types = nil
	for _, c := range []struct {
		from, key, router, expert string
	}{
		{"mixtral", "num_local_experts", "model.layers.1.block_sparse_moe.gate.weight", "model.layers.1.block_sparse_moe.experts.%.w2.weight"},
		{"qwen3-moe", "num_local_experts", "model.layers.1.mlp.gate.weight", "model.layers.1.mlp.experts.%.down_proj.weight"},
		{"granitemoe", "num_local_experts", "model.layers.1.block_sparse_moe.router.layer.weight", ""},
	} {
		for _, method := range []string{"reap", "dern"} {
			t.Run(c.from+" "+method, func(t *testing.T) {
				dir, from := t.TempDir(), filepath.Join(testdata, c.from)
				src := openDir(t, from)
				had, err := src.Config.Int(c.key)
				if err != nil {
					t.Fatal(err)
				}
				run := func(out string, experts int) *Contents {
					t.Helper()
					opt := FuseOptions{Method: method, Fusion: fusion.Options{Experts: experts}}
					done, err := opt.Calibrate(t.Context(), newPool(t), src, texts, false)
					if err != nil {
						t.Fatal(err)
					}
					defer done()
					fuse(t, from, filepath.Join(dir, out), opt)
					inspected, err := InspectPath(filepath.Join(dir, out))
					if err != nil {
						t.Fatal(err)
					}
					return inspected
				}
				run("all", had)
				golden.Near(t, "logits with all experts", forward(t, filepath.Join(dir, "all")), forward(t, from), 0)
				before, err := InspectPath(from)
				if err != nil {
					t.Fatal(err)
				}
				after := run("few", 3)
				forward(t, filepath.Join(dir, "few"))
				made := openDir(t, filepath.Join(dir, "few"))
				if n, err := made.Config.Int(c.key); err != nil || n != 3 {
					t.Errorf("%s: %d (%v), want 3", c.key, n, err)
				}
				if after.OriginalParameters != before.Parameters || after.Parameters >= before.Parameters {
					t.Errorf("%d parameters of %d, want fewer of %d", after.Parameters, after.OriginalParameters, before.Parameters)
				}
				if after.MLPFLOPs != before.MLPFLOPs {
					t.Errorf("%d operations a token, want %d as before", after.MLPFLOPs, before.MLPFLOPs)
				}
				f, err := made.Config.Fusion()
				if err != nil || f.Experts != had {
					t.Fatalf("%d experts before (%v), want %d", f.Experts, err, had)
				}
				name, _, _ := strings.Cut(c.router, ".gate.")
				name, _, _ = strings.Cut(name, ".router.")
				kept := f.Kept[name]
				if len(kept) != 3 || !slices.IsSorted(kept) {
					t.Fatalf("kept %v of %v", kept, f.Kept)
				}
				rows := read(t, src, c.router)
				hidden := len(rows) / had
				got := read(t, made, c.router)
				for i, e := range kept {
					if !slices.Equal(got[i*hidden:(i+1)*hidden], rows[e*hidden:(e+1)*hidden]) {
						t.Errorf("row %d of the router is not that of expert %d", i, e)
					}
					if c.expert == "" || method != "reap" {
						continue
					}
					a, b := strings.Replace(c.expert, "%", itoa(i), 1), strings.Replace(c.expert, "%", itoa(e), 1)
					if !slices.Equal(read(t, made, a), read(t, src, b)) {
						t.Errorf("%s is not %s", a, b)
					}
				}
			})
		}
	}
	for _, c := range []struct {
		opt  FuseOptions
		want string
	}{
		{FuseOptions{Plan: Plan{Layers: "0"}, Fusion: fusion.Options{Experts: 2}}, "layers: expected all mixtures of experts"},
		{FuseOptions{Fusion: fusion.Options{Experts: 1}}, "experts: expected 2, to which each token goes"},
	} {
		c.opt.Method, c.opt.Calibration = "reap", randomInputs{32}
		if _, err := Fuse(t.Context(), openDir(t, filepath.Join(testdata, "mixtral")), filepath.Join(t.TempDir(), "x"), c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}
