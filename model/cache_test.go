package model_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// TestNext writes sequences of several lengths with the cache, in pieces of
// several sizes, and compares the logits with those of the whole sequences.
func TestNext(t *testing.T) {
	for _, name := range slices.Concat([]string{"gpt2", "t5", "t5-gated", "switch"}, decoders, mixtures) {
		for _, packed := range []bool{false, true} {
			t.Run(name+"/"+strconv.FormatBool(packed), func(t *testing.T) {
				m := load(t, name, model.LoadOptions{})
				if m.Config.TwoStacks() {
					m.Config.Mixture.Capacity = 1 << 20 // a whole sequence's tokens compete for experts, one token does not
				}
				pool := kernel.NewPool(2)
				defer pool.Close()
				tape := nn.NewTape(pool)
				if packed {
					m.Pack(pool, kernel.FP32, true)
				}
				random := rand.New(rand.NewPCG(1, 2))
				ids := func(n int) []int32 {
					out := make([]int32, n)
					for i := range out {
						out[i] = random.Int32N(int32(m.Config.Vocab))
					}
					return out
				}
				cache, err := m.NewCache()
				if err != nil {
					t.Fatal(err)
				}
				prompts := [][]int32{ids(1), ids(9), ids(17)}
				var sequences []int32
				var texts, ahead [][]int32 // what each decoder has read and is to read
				for _, p := range prompts {
					tape.Reset(0)
					s, first := m.Begin(tape, cache, p)
					sequences, texts, ahead = append(sequences, s), append(texts, nil), append(ahead, first)
				}
				for step := range 6 {
					var batch []int32
					offsets := []int32{0}
					for i := range sequences {
						texts[i] = append(texts[i], ahead[i]...)
						batch = append(batch, ahead[i]...)
						offsets = append(offsets, int32(len(batch)))
						ahead[i] = ids(1 + (step+i)%3)
					}
					tape.Reset(0)
					got := m.Next(tape, cache, sequences, batch, offsets)
					logits := append([]float32(nil), got.Data...)
					for i, text := range texts {
						if n := cache.Len(sequences[i]); n != len(text) {
							t.Fatalf("a sequence of %d tokens for %d", n, len(text))
						}
						in := &model.Input{IDs: text, Offsets: []int32{0, int32(len(text))}}
						if m.Config.TwoStacks() {
							in = &model.Input{IDs: prompts[i], Offsets: []int32{0, int32(len(prompts[i]))}, DecoderIDs: text, DecoderOffsets: in.Offsets}
						}
						tape.Reset(0)
						want := m.Forward(tape, in).Data
						golden.NearNorm(t, fmt.Sprintf("step %d: logits of sequence %d", step, i), logits[i*m.Config.Vocab:(i+1)*m.Config.Vocab], want, 1e-5)
					}
					// A sequence branches, one ends, and its number is used again.
					switch step {
					case 1:
						branch := cache.Fork(sequences[1])
						sequences, prompts = append(sequences, branch), append(prompts, prompts[1])
						texts, ahead = append(texts, append([]int32(nil), texts[1]...)), append(ahead, ids(2))
					case 3:
						cache.Free(sequences[0])
						sequences, prompts, texts, ahead = sequences[1:], prompts[1:], texts[1:], ahead[1:]
						branch := cache.Fork(sequences[1])
						sequences, prompts = append(sequences, branch), append(prompts, prompts[1])
						texts, ahead = append(texts, append([]int32(nil), texts[1]...)), append(ahead, ids(1))
					}
				}
			})
		}
	}
}

// TestNextAllocations: writing on allocates nothing but pages.
func TestNextAllocations(t *testing.T) {
	m := load(t, "gpt2", model.LoadOptions{})
	pool := kernel.NewPool(1)
	defer pool.Close()
	m.Pack(pool, kernel.FP32, true)
	tape := nn.NewTape(pool)
	cache, err := m.NewCache()
	if err != nil {
		t.Fatal(err)
	}
	sequences, ids, offsets := []int32{0, 0}, []int32{1, 2}, []int32{0, 1, 2}
	write := func() {
		for i := range sequences {
			sequences[i], _ = m.Begin(tape, cache, nil)
		}
		for range 20 {
			tape.Reset(0)
			m.Next(tape, cache, sequences, ids, offsets)
		}
		for _, s := range sequences {
			cache.Free(s)
		}
	}
	write()
	if n := testing.AllocsPerRun(5, write); n != 0 {
		t.Errorf("%v allocations in 20 steps", n)
	}
}

func TestNewCacheRefuses(t *testing.T) {
	m := load(t, "bert", model.LoadOptions{})
	if _, err := m.NewCache(); err == nil || err.Error() != "expected a language model, found a bert model with another head" {
		t.Errorf("found error %v", err)
	}
}
