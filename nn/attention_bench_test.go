package nn

import (
	"testing"

	"mlpfusion/kernel"
)

// BenchmarkAttention times attention forward and backward, of sequences as encoders
// and decoders have them.
func BenchmarkAttention(b *testing.B) {
	for _, c := range []struct {
		name          string
		sequences, of int
		opt           AttentionOptions
	}{
		{"encoder, 32 of 24", 32, 24, AttentionOptions{Heads: 12, Dim: 32}},
		{"encoder, 16 of 128", 16, 128, AttentionOptions{Heads: 12, Dim: 64, Drop: 0.1}},
		{"encoder, 2 of 512", 2, 512, AttentionOptions{Heads: 12, Dim: 64}},
		{"decoder, 8 of 64", 8, 64, AttentionOptions{Heads: 12, Dim: 64, Causal: true, Drop: 0.1}},
		{"decoder, 4 of 512", 4, 512, AttentionOptions{Heads: 9, KVHeads: 3, Dim: 64, Causal: true}},
		{"decoder, 1 of 4096", 1, 4096, AttentionOptions{Heads: 9, KVHeads: 3, Dim: 64, Causal: true}},
		{"window, 1 of 4096", 1, 4096, AttentionOptions{Heads: 4, KVHeads: 1, Dim: 256, Causal: true, Window: 512}},
	} {
		b.Run(c.name, func(b *testing.B) {
			off := []int32{0}
			for i := range c.sequences {
				off = append(off, int32((i+1)*c.of))
			}
			a := newAttend(c.opt, off, off)
			pool := kernel.NewPool(1)
			defer pool.Close()
			tape := NewTape(pool)
			tape.Train = true
			for i := 0; b.Loop(); i++ {
				tape.Reset(i)
				x := &Tensor{Rows: len(a.x) / a.cols(), Cols: a.cols(), Data: a.x}
				y := tape.Attention(Heads{X: x}, Heads{X: x, Start: a.Heads * a.Dim}, Heads{X: x, Start: (a.Heads + a.KVHeads) * a.Dim}, off, off, a.AttentionOptions)
				y.Grad = tape.grads.get(len(a.dy))
				copy(y.Grad, a.dy)
				tape.Backward()
			}
		})
	}
}
