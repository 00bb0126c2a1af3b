package ntk_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/ntk"
)

// How far the tangent kernels of a fused model lie from the original's.
func ExampleCompare() {
	ctx := context.Background()
	pool := kernel.NewPool(0)
	defer pool.Close()
	parent, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(parent)
	original, fused, err := pair(ctx, pool, filepath.Join(parent, "original"), filepath.Join(parent, "fused"))
	if err != nil {
		log.Fatal(err)
	}

	texts := model.NewInput([]int32{2, 11, 7, 3}, []int32{2, 9, 3}, []int32{2, 5, 8, 6, 3}) // token ids
	o := ntk.Options{Kind: ntk.Adam, Blocks: ntk.All(original)}
	before, err := ntk.Compute(ctx, pool, original, texts, o)
	if err != nil {
		log.Fatal(err)
	}
	after, err := ntk.Compute(ctx, pool, fused, texts, o)
	if err != nil {
		log.Fatal(err)
	}
	for i := range before {
		d, err := ntk.Compare(before[i], after[i])
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: relative error %.1f, alignment %.1f\n", before[i].Block, d.Relative, d.Alignment)
	}
	// Output:
	// bert.encoder.layer.0: relative error 0.1, alignment 1.0
	// bert.encoder.layer.1: relative error 0.1, alignment 1.0
}

// pair writes a BERT of two layers with random weights to one path, fuses its blocks from
// 32 to 24 hidden units to the other, and loads both.
func pair(ctx context.Context, pool *kernel.Pool, originalPath, fusedPath string) (original, fused *model.Model, err error) {
	config, err := checkpoint.ParseConfig("config.json", []byte(`{
		"model_type": "bert", "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.3
	}`))
	if err != nil {
		return nil, nil, err
	}
	original, err = model.FromScratch(config, model.LoadOptions{Head: model.Classification, Labels: []string{"negative", "positive"}, Seed: 1})
	if err != nil {
		return nil, nil, err
	}
	out, err := checkpoint.CreateOutput(originalPath, false)
	if err != nil {
		return nil, nil, err
	}
	defer out.Abort() // does nothing after Commit
	if err := errors.Join(original.Save(out, config), out.Commit()); err != nil {
		return nil, nil, err
	}

	dir, err := checkpoint.OpenDir(originalPath)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	_, err = convert.Fuse(ctx, dir, fusedPath, convert.FuseOptions{
		Method: "fusion",
		Plan:   convert.Plan{Layers: "all", Width: 24},
		Fusion: fusion.Options{Pool: pool},
	})
	if err != nil {
		return nil, nil, err
	}
	fusedDir, err := checkpoint.OpenDir(fusedPath)
	if err != nil {
		return nil, nil, err
	}
	defer fusedDir.Close()
	fused, _, err = model.Load(fusedDir, model.LoadOptions{})
	return original, fused, err
}
