package model_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// decoders are checkpoints of today's decoders (scripts/goldens/decoders.py), which the
// tests of language models use too.
var decoders = []string{"llama", "llama-3", "llama-linear", "llama-yarn", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "nemotron-nas"}

// TestGreedy continues a prompt token by token with the cache, and must write what
// transformers does, past the length of every window.
func TestGreedy(t *testing.T) {
	for _, name := range append(decoders, mixtures...) {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			checkGreedy(t, m, nn.NewTape(pool), g.Ints("prompt"), g.Ints("text"))
		})
	}
}

// checkGreedy continues a prompt with the most probable tokens.
func checkGreedy(t *testing.T, m *model.Model, tape *nn.Tape, prompt, want []int32) {
	t.Helper()
	cache, err := m.NewCache()
	if err != nil {
		t.Fatal(err)
	}
	s, next := m.Begin(tape, cache, prompt)
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
}

// TestRealDecoder compares a real model with what transformers makes of it
// (scripts/peers/decoders.py, scripts/test-peers.sh).
func TestRealDecoder(t *testing.T) {
	folder, file := os.Getenv("MLPFUSION_DECODER"), os.Getenv("MLPFUSION_PEER_DECODER")
	if folder == "" || file == "" {
		t.Skip("MLPFUSION_DECODER and MLPFUSION_PEER_DECODER are not set: no real decoder is compared")
	}
	dir, err := checkpoint.OpenDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, _, err := model.Load(dir, model.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g := golden.Open(t, file)
	ids := g.Ints("ids")
	in := &model.Input{IDs: ids, Offsets: []int32{0, int32(len(ids))}, Targets: g.Ints("targets")}
	pool := kernel.NewPool(2)
	defer pool.Close()
	tape := nn.NewTape(pool)
	out := &model.Output{AllTokens: true, KeepHidden: true}
	m.ForwardAll(tape, in, out)
	var worst float64
	for i, h := range out.Hidden {
		want := g.Floats("hidden." + strconv.Itoa(i))
		golden.NearNorm(t, fmt.Sprintf("hidden state %d", i), h.Data, want, 1e-4)
		worst = max(worst, golden.Relative(h.Data, want))
	}
	t.Logf("hidden states of %d layers: farthest %.1e of the norm", m.Depth(), worst)
	tape.Reset(0)
	want := float64(g.Floats("loss")[0])
	golden.NearValue(t, "loss", m.Loss(tape, nn.CrossEntropy, in, nil), want, 1e-5*want)
	checkGreedy(t, m, tape, ids[:20], g.Ints("text"))
}
