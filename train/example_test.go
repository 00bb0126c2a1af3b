package train_test

import (
	"fmt"
	"log"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// Training steps on one batch, with the paper's AdamW.
func ExampleStepper() {
	config, err := checkpoint.ParseConfig("config.json", []byte(`{
		"model_type": "bert", "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.3
	}`))
	if err != nil {
		log.Fatal(err)
	}
	m, err := model.FromScratch(config, model.LoadOptions{Head: model.Classification, Labels: []string{"negative", "positive"}, Seed: 1})
	if err != nil {
		log.Fatal(err)
	}

	// Two texts laid end to end; task.Encode and Encoded.Fill make batches of a data set.
	batch := &task.Batch{
		IDs:     []int32{2, 11, 7, 3, 2, 9, 3},
		Offsets: []int32{0, 4, 7},
		Labels:  []float32{1, 0}, // positive, negative
	}
	pool := kernel.NewPool(0)
	defer pool.Close()
	s := train.NewStepper(pool, m, train.PaperOptimizer, kernel.FP32, 1)
	first := s.Step(batch, 1e-2) // the loss before the step
	for range 19 {
		s.Step(batch, 1e-2)
	}
	last := s.Step(batch, 1e-2)
	fmt.Printf("loss %.2f, after 20 steps %.2f\n", first, last)
	// Output:
	// loss 0.66, after 20 steps 0.14
}
