package model_test

import (
	"path/filepath"
	"slices"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// TestParts runs models a layer at a time from their files: the logits are those of the
// whole model, and a part has the memory of its own layer's MLPs alone.
func TestParts(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	for _, name := range []string{"bert", "bert-svd", "distilbert", "gpt2", "gpt2-fused", "gpt2-padded", "llama", "llama-classifier", "gemma2", "olmo2", "t5", "t5-label", "t5-untied", "switch", "switch-fused", "mixtral", "mixtral-stacked", "qwen2-moe", "granitemoe"} {
		t.Run(name, func(t *testing.T) {
			dir, err := checkpoint.OpenDir(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			src, err := model.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			in := &model.Input{IDs: []int32{5, 6, 7, 8, 9, 5, 4}, Offsets: []int32{0, 4, 7}}
			got, err := model.Logits(nn.NewTape(pool), src, in)
			if err != nil {
				t.Fatal(err)
			}
			m := load(t, name, model.LoadOptions{NewHead: true})
			golden.Near(t, "logits", got.Data, m.Forward(nn.NewTape(pool), in).Data, 0)
			seen := make([]bool, len(src.Blocks))
			for depth := -1; depth <= src.Config.Depth(); depth++ {
				part, err := src.Part(depth)
				if err != nil {
					t.Fatal(err)
				}
				for i, b := range part.Blocks {
					if own := b.Depth == depth; own != (b.MLP != nil) {
						t.Errorf("part %d: the memory of %s is there: %v", depth, b.Name, b.MLP != nil)
					}
					seen[i] = seen[i] || b.MLP != nil
				}
			}
			if slices.Contains(seen, false) {
				t.Errorf("blocks in some part: %v", seen)
			}
		})
	}
}
