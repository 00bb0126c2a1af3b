package model_test

import (
	"slices"
	"testing"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// decoders are checkpoints of today's decoders (scripts/goldens/decoders.py), which the
// tests of language models use too.
var decoders = []string{"llama", "llama-3", "llama-linear", "llama-yarn", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2"}

// TestGreedy continues a prompt token by token with the cache, and must write what
// transformers does, past the length of every window.
func TestGreedy(t *testing.T) {
	for _, name := range decoders {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			cache, err := m.NewCache()
			if err != nil {
				t.Fatal(err)
			}
			want := g.Ints("text")
			s, next := m.Begin(tape, cache, g.Ints("prompt"))
			var text []int32
			for range want {
				tape.Reset(0)
				logits := m.Next(tape, cache, []int32{s}, next, []int32{0, int32(len(next))}).Data
				next = []int32{int32(slices.Index(logits, slices.Max(logits)))}
				text = append(text, next...)
			}
			if !slices.Equal(text, want) {
				t.Errorf("found %v, want %v", text, want)
			}
		})
	}
}
