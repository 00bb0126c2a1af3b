package nn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestAttendOne compares it with Attention on keys and values, which PyTorch's
// results prove: output and all gradients, under the same dropout mask, with a
// gradient that x and the matrix have already.
func TestAttendOne(t *testing.T) {
	const heads, dim, hidden = 4, 8, 20
	offsets := []int32{0, 7, 8, 45 + keyBlock}
	queries := []int32{0, 1, 2, 3}
	for _, c := range []struct {
		kvHeads int
		bias    bool
		drop    float32
		prec    kernel.Precision
		off     float64
		side    bool // a low-rank path beside the values
	}{
		{4, true, 0, kernel.FP32, 2e-6, false}, {4, true, 0.3, kernel.FP32, 2e-6, false}, {4, false, 0.3, kernel.FP32, 2e-6, false},
		{2, true, 0.3, kernel.FP32, 2e-6, false}, {1, false, 0, kernel.FP32, 2e-6, false}, {2, false, 0, kernel.FP32, 2e-6, true},
		// Four products in a row, each of two inputs rounded by a 512th at most.
		{4, true, 0.3, kernel.BF16, 8. / 512, false},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 6))
			random := func(n int, size float64) []float32 { return normal(rng, n, size) }
			keys := c.kvHeads * dim // columns of kv that are keys
			n := int(offsets[len(offsets)-1])
			x0, q0, dy := random(n*hidden, 1), random(3*heads*dim, 1), random(3*heads*dim, 1)
			w0, b0, dx0, dw0 := random(2*keys*hidden, 0.3), random(3*keys, 1), random(n*hidden, 1), random(2*keys*hidden, 1)
			run := func(workers int, one bool, prec kernel.Precision) (parts [][]float32) {
				pool := kernel.NewPool(workers)
				defer pool.Close()
				tape := NewTape(pool)
				tape.Train, tape.Prec = true, prec
				tape.Reset(3)
				x, q := tape.New(n, hidden), tape.New(3, heads*dim)
				copy(x.Data, x0)
				copy(q.Data, q0)
				x.Grad = slices.Clone(dx0)
				kv := &Linear{W: &Weight{Data: w0, Grad: slices.Clone(dw0), Rows: 2 * keys, Cols: hidden, written: true}}
				if c.bias {
					kv.B = &Weight{Data: b0[:2*keys], Grad: random(2*keys, 1), Rows: 1, Cols: 2 * keys} // a stale gradient
				}
				if c.side {
					kv.Sides = []*LowRank{{A: &Weight{Data: w0, Rows: 3, Cols: hidden},
						B: &Weight{Data: b0, Rows: keys, Cols: 3}, From: keys, Scale: 1}}
				}
				opt := AttentionOptions{Heads: heads, KVHeads: c.kvHeads, Dim: dim, Scale: 0.7, Drop: c.drop}
				var y *Tensor
				if one {
					y = tape.AttendOne(q, x, kv, offsets, opt)
				} else {
					made := tape.Linear(x, kv, kernel.Identity, nil)
					y = tape.Attention(Heads{X: q}, Heads{X: made}, Heads{X: made, Start: keys}, queries, offsets, opt)
				}
				parts = [][]float32{slices.Clone(y.Data)}
				y.Grad = slices.Clone(dy)
				tape.Backward()
				parts = append(parts, q.Grad, x.Grad, kv.W.Grad)
				if c.bias {
					parts = append(parts, kv.B.Grad[keys:])
					for i, g := range kv.B.Grad[:keys] {
						if one && g != 0 {
							t.Fatalf("element %d of the key bias's gradient is %g: it moves all scores of a query alike", i, g)
						}
					}
				}
				for _, s := range kv.Sides {
					parts = append(parts, s.A.Grad, s.B.Grad)
				}
				return parts
			}
			want, got := run(2, false, kernel.FP32), run(1, true, c.prec)
			names := []string{"output", "gradient of q", "gradient of x", "gradient of the matrix"}
			if c.bias {
				names = append(names, "gradient of the values' bias")
			}
			if c.side {
				names = append(names, "gradient of A", "gradient of B")
			}
			for i, name := range names {
				golden.NearNorm(t, name, got[i], want[i], c.off)
			}
			for i, part := range run(3, true, c.prec) {
				if !slices.Equal(part, got[i]) {
					t.Errorf("part %d: three workers' bytes differ from one's", i)
				}
			}
		})
	}
}

// TestAttendOneFrozen checks that what needs no gradient gets none.
func TestAttendOneFrozen(t *testing.T) {
	pool := kernel.NewPool(1)
	defer pool.Close()
	tape := NewTape(pool)
	tape.Train = true
	q, x := tape.New(1, 4), tape.New(3, 4)
	x.noGrad = true
	kv := &Linear{W: NewWeight(8, 4), B: NewWeight(1, 8)}
	kv.W.Frozen, kv.B.Frozen = true, true
	y := tape.AttendOne(q, x, kv, []int32{0, 3}, AttentionOptions{Heads: 2, Dim: 2})
	y.Grad = make([]float32, 4)
	tape.Backward()
	if x.Grad != nil || kv.W.Reached() || kv.B.Reached() || q.Grad == nil {
		t.Error("a gradient was taken where none is wanted, or not where one is")
	}
}
