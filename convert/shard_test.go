package convert

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlpfusion/fusion"
	"mlpfusion/model"
)

// TestShards: what shards make, in one folder or in folders of their own, merges to the
// bytes of one run.
func TestShards(t *testing.T) {
	texts := &Texts{Name: "texts", Batches: []model.Input{*sample, *sample.Slice(1, 3)}}
	texts.Batches[0].Types, texts.Batches[1].Types = nil, nil
	for _, c := range []struct {
		name, from string
		opt        FuseOptions
	}{
		{"fusion", "bert", FuseOptions{Plan: Plan{Width: 16}}},
		{"budget", "bert", FuseOptions{Budget: 0.5}},
		{"calibrated apart", "llama", FuseOptions{Plan: Plan{Width: 16}, Method: "calibrated", Apart: true}},
		{"calibrated experts", "mixtral", FuseOptions{Plan: Plan{Ratio: 0.5}, Method: "calibrated"}},
		{"merged experts", "mixtral", FuseOptions{Method: "mc-smoe", Fusion: fusion.Options{Experts: 2}}},
		{"dropped experts", "mixtral", FuseOptions{Method: "dern", Fusion: fusion.Options{Experts: 2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, from := t.TempDir(), filepath.Join(testdata, c.from)
			fuseHere := func(out string, i, n int) *Fused {
				t.Helper()
				opt := c.opt
				opt.Shard, opt.Shards = i, n
				if opt.Method == "" {
					opt.Method = "fusion"
				}
				done, err := opt.Calibrate(t.Context(), newPool(t), openDir(t, from), texts, false)
				if err != nil {
					t.Fatal(err)
				}
				defer done()
				return fuse(t, from, filepath.Join(dir, out), opt)
			}
			one := fuseHere("one", 0, 0)
			want := files(t, filepath.Join(dir, "one"))
			check := func(out string, folders ...string) {
				t.Helper()
				r, err := Merge(context.Background(), openDir(t, from), filepath.Join(dir, out), folders, false)
				if err != nil {
					t.Fatal(err)
				}
				got := files(t, filepath.Join(dir, out))
				if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) || !slices.Equal(r.Blocks, one.Blocks) {
					t.Fatalf("files and blocks %v %v, want %v %v", slices.Sorted(maps.Keys(got)), r.Blocks, slices.Sorted(maps.Keys(want)), one.Blocks)
				}
				for name := range want {
					if string(got[name]) != string(want[name]) {
						t.Errorf("%s is not that of one run", name)
					}
				}
			}
			blocks := 0
			for i := range 2 {
				r := fuseHere("together", i+1, 2)
				blocks += len(r.Blocks)
				if _, err := os.Stat(filepath.Join(dir, "together")); err == nil || r.Shard == "" {
					t.Error("a shard wrote the model")
				}
			}
			if blocks != len(one.Blocks) {
				t.Errorf("shards made %d blocks, want %d", blocks, len(one.Blocks))
			}
			check("together")
			var folders []string
			for i := range 3 {
				name := fmt.Sprint("alone ", i)
				fuseHere(name, i+1, 3)
				folders = append(folders, filepath.Join(dir, name+WorkSuffix))
			}
			check("alone", folders...)
		})
	}
}

// TestShardRefusals: what is missing or of another run is told in a sentence, and so is
// what cannot be shared.
func TestShardRefusals(t *testing.T) {
	dir, from := t.TempDir(), filepath.Join(testdata, "bert")
	at := func(name string) string { return filepath.Join(dir, name) }
	shards := func(out string, width, n int, which ...int) {
		t.Helper()
		for _, i := range which {
			fuse(t, from, at(out), FuseOptions{Plan: Plan{Width: width}, Shard: i, Shards: n})
		}
	}
	refused := func(want, out string, folders ...string) {
		t.Helper()
		_, err := Merge(t.Context(), openDir(t, from), at(out), folders, false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if _, err := os.Stat(at(out)); err == nil {
			t.Error("something was written")
		}
	}
	shards("a", 16, 3, 1, 3)
	refused("expected all blocks of 3 shards in "+at("a.fuse")+", found no shard 2/3", "a")
	shards("b", 8, 3, 2)
	refused("expected a shard of the run of", "a", at("b.fuse"))
	refused("width=8 in place of width=16", "a", at("b.fuse"))
	shards("c", 16, 2, 1)
	refused("shards=2 in place of 3", "a", at("c.fuse"))
	refused("found none", "nothing")
	refused("expected a folder in which a shard has left its blocks", "nothing", dir)
	if err := os.Remove(filepath.Join(at("c.fuse"), "block-0002.safetensors")); err != nil {
		t.Fatal(err)
	}
	refused("found shard 1/2 that has yet to make 1 of its blocks (go on with --resume), no shard 2/2", "c")
	again := FuseOptions{Plan: Plan{Width: 16}, Method: "fusion", Shard: 1, Shards: 2}
	if _, err := Fuse(t.Context(), openDir(t, from), at("c"), again); err == nil || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("a shard that was begun: %v", err)
	}
	again.Resume = true
	fuse(t, from, at("c"), again)
	shards("c", 16, 2, 2)
	if _, err := Merge(t.Context(), openDir(t, from), at("c"), nil, false); err != nil {
		t.Error(err)
	}

	opt := FuseOptions{Plan: Plan{Width: 16}, Method: "calibrated", Shard: 1, Shards: 2, Calibration: randomInputs{32}}
	if _, err := Fuse(t.Context(), openDir(t, from), at("d"), opt); err == nil || !strings.Contains(err.Error(), "give --apart") {
		t.Errorf("blocks that wait for one another: %v", err)
	}
	opt.Shard = 3
	if _, err := Fuse(t.Context(), openDir(t, from), at("d"), opt); err == nil || !strings.Contains(err.Error(), "shard: expected 1 to 2 of 2, found 3") {
		t.Errorf("shard 3 of 2: %v", err)
	}
}
