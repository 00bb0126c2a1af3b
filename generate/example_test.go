package generate_test

import (
	"context"
	"fmt"
	"log"

	"mlpfusion/checkpoint"
	"mlpfusion/generate"
	"mlpfusion/kernel"
	"mlpfusion/model"
)

// A language model goes on with two prompts, greedily.
func ExampleGenerator() {
	config, err := checkpoint.ParseConfig("config.json", []byte(`{
		"model_type": "gpt2", "vocab_size": 16, "n_embd": 8, "n_layer": 2, "n_head": 2,
		"n_positions": 64, "eos_token_id": 15, "initializer_range": 0.3
	}`))
	if err != nil {
		log.Fatal(err)
	}
	m, err := model.FromScratch(config, model.LoadOptions{Head: model.LanguageModel, Seed: 3})
	if err != nil {
		log.Fatal(err)
	}

	pool := kernel.NewPool(0)
	defer pool.Close()
	g, err := generate.New(pool, m, kernel.FP32)
	if err != nil {
		log.Fatal(err)
	}
	prompts := [][]int32{{1, 2, 3}, {4}}
	written, err := g.Run(context.Background(), prompts, generate.Options{MaxNewTokens: 5, Stop: []int32{15}}, generate.Watch{})
	if err != nil {
		log.Fatal(err)
	}
	for i, w := range written {
		fmt.Println(prompts[i], "goes on with", w.Tokens)
	}
	// Output:
	// [1 2 3] goes on with [4 8 8 8 8]
	// [4] goes on with [12 2 12 4 4]
}
