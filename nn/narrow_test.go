package nn

import (
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestNarrow compares a network whose matrices are kept in bfloat16, or as whole numbers,
// with the same in float32, rounded: results and gradients to the last bit, in training
// and packed.
func TestNarrow(t *testing.T) {
	for name, new := range map[string]func(rows, cols int) *Weight{"bfloat16": NewHalf, "int8": NewInt8} {
		t.Run(name, func(t *testing.T) { testNarrow(t, new) })
	}
}

func testNarrow(t *testing.T, new func(rows, cols int) *Weight) {
	const words, hidden, heads, dim = 30, 16, 2, 6
	offsets := []int32{0, 3, 8}
	ids, targets := []int32{4, 9, 9, 1, 0, 29, 7, 3}, []int32{5, 6}
	pool := kernel.NewPool(2)
	defer pool.Close()
	run := func(narrow, train, pack bool) (results [][]float32, kept int) {
		rng := rand.New(rand.NewPCG(2, 3))
		matrix := func(rows, cols int) *Weight {
			kept := new(rows, cols)
			p := Param{Cols: cols}
			p.Of(kept, 0, rows*cols)
			p.SetRows(0, normal(rng, rows*cols, 0.5))
			w := &Weight{Data: p.Values(), Rows: rows, Cols: cols, Frozen: true}
			if narrow {
				w = kept
			}
			if pack {
				w.Pack(pool, kernel.FP32)
			}
			return w
		}
		table, positions := matrix(words, hidden), matrix(8, hidden)
		up := &Linear{W: matrix(3*hidden, hidden), B: NewWeight(1, 3*hidden)}
		qkv := &Linear{W: matrix(3*heads*dim, 3*hidden), B: NewWeight(1, 3*heads*dim)}
		q, kv := qkv.View(0, heads*dim), qkv.View(heads*dim, 3*heads*dim)
		out := &Linear{W: matrix(hidden, heads*dim), B: NewWeight(1, hidden)}
		tape := NewTape(pool)
		tape.Train = train
		tape.Reset(0)
		x := tape.Embed([]*Weight{table, positions}, [MaxTables][]int32{ids, {0, 1, 2, 0, 1, 2, 3, 4}})
		h := tape.Linears(nil, []*Tensor{x}, []*Linear{up}, kernel.GELU, nil)[0]
		asked := tape.Linear(tape.Rows(h, []int32{2, 7}), q, kernel.Identity, nil)
		y := tape.Linear(tape.AttendOne(asked, h, kv, offsets, AttentionOptions{Heads: heads, Dim: dim}), out, kernel.Identity, nil)
		results = append(results, slices.Clone(y.Data))
		loss := tape.VocabularyLoss(CrossEntropy, y, table, 1, 0, targets)
		results = append(results, []float32{float32(loss)})
		tape.Backward()
		for _, w := range []*Weight{up.B, qkv.B, out.B} {
			results = append(results, slices.Clone(w.Grad))
		}
		for _, w := range []*Weight{table, positions, up.W, qkv.W, out.W} {
			kept += len(w.Data)
		}
		return results, kept
	}
	for _, train := range []bool{true, false} {
		want, _ := run(false, train, !train)
		got, kept := run(true, train, !train)
		for i, w := range want {
			if len(w) > 0 {
				golden.Near(t, "a result", got[i], w, 0)
			} else if train || got[i] != nil {
				t.Error("a gradient without training, or none with it")
			}
		}
		if kept > 0 {
			t.Errorf("%d values are kept in float32", kept)
		}
	}
}
