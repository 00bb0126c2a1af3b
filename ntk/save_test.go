package ntk_test

import (
	"path/filepath"
	"slices"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/ntk"
)

// TestSaveSteps: a checkpoint with multipliers loads with them, and is otherwise
// what it was; saving it with others replaces them.
func TestSaveSteps(t *testing.T) {
	path := filepath.Join("..", "model", "testdata", "bert-fused")
	for round := range 2 {
		dir, err := checkpoint.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		before := load(t, path)
		var fits []ntk.StepFit
		for _, b := range ntk.Fused(before) {
			steps := make([]float32, before.Blocks[b].Width)
			for k := range steps {
				steps[k] = float32(k+b+round) / 8
			}
			fits = append(fits, ntk.StepFit{Block: before.Blocks[b].Name, Steps: steps})
		}
		path = filepath.Join(t.TempDir(), "stepped")
		out, err := checkpoint.CreateOutput(path, false)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Abort()
		if err := ntk.SaveSteps(dir, out, fits); err != nil {
			t.Fatal(err)
		}
		if err := out.Commit(); err != nil {
			t.Fatal(err)
		}
		after := load(t, path)
		for i, b := range ntk.Fused(after) {
			if !slices.Equal(after.Blocks[b].MLP.StepSizes, fits[i].Steps) {
				t.Errorf("%s: loaded steps %v, saved %v", fits[i].Block, after.Blocks[b].MLP.StepSizes, fits[i].Steps)
			}
			if !slices.Equal(after.Blocks[b].MLP.ClusterSizes, before.Blocks[b].MLP.ClusterSizes) {
				t.Errorf("%s: P has changed", fits[i].Block)
			}
		}
		for i, p := range before.Params {
			if after.Params[i].Name != p.Name || !slices.Equal(after.Params[i].Data, p.Data) {
				t.Errorf("%s has changed", p.Name)
			}
		}
	}
}
