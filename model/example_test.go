package model_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// A classifier loaded from a Hugging Face directory labels two texts.
func ExampleLoad() {
	parent, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(parent)
	path := filepath.Join(parent, "tiny")
	if err := writeTiny(path); err != nil {
		log.Fatal(err)
	}

	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}

	in := model.NewInput([]int32{2, 11, 7, 3}, []int32{2, 9, 3}) // token ids, see package tokenize
	if err := m.Check(in); err != nil {
		log.Fatal(err)
	}
	pool := kernel.NewPool(0)
	defer pool.Close()
	logits := m.Forward(nn.NewTape(pool), in) // texts × labels

	for i := range logits.Rows {
		best := 0
		for k := range logits.Cols {
			if logits.Data[i*logits.Cols+k] > logits.Data[i*logits.Cols+best] {
				best = k
			}
		}
		fmt.Printf("text %d is %s\n", i, m.Config.Labels[best])
	}
	// Output:
	// text 0 is negative
	// text 1 is positive
}

// writeTiny writes a BERT of two layers with random weights.
func writeTiny(path string) error {
	config, err := checkpoint.ParseConfig("config.json", []byte(`{
		"model_type": "bert", "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.3
	}`))
	if err != nil {
		return err
	}
	m, err := model.FromScratch(config, model.LoadOptions{Head: model.Classification, Labels: []string{"negative", "positive"}, Seed: 6})
	if err != nil {
		return err
	}
	out, err := checkpoint.CreateOutput(path, false)
	if err != nil {
		return err
	}
	defer out.Abort() // does nothing after Commit
	if err := m.Save(out, config); err != nil {
		return err
	}
	return out.Commit()
}
