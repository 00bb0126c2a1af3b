package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// attend is an attention to try: q, k and v side by side in x, and the gradient
// dy of its result.
type attend struct {
	AttentionOptions
	queries, keys []int32
	x, dy         []float32
	dtable        []float64 // what want finds for Bias
}

// newAttend fills x and dy at random.
func newAttend(opt AttentionOptions, queries, keys []int32) *attend {
	a := &attend{AttentionOptions: opt, queries: queries, keys: keys}
	a.complete()
	rng := rand.New(rand.NewPCG(3, 4))
	a.x = normal(rng, int(keys[len(keys)-1])*a.cols(), 1)
	a.dy = normal(rng, int(queries[len(queries)-1])*a.Heads*a.Dim, 1)
	return a
}

// normal returns n random numbers of the given standard deviation.
func normal(rng *rand.Rand, n int, size float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(size * rng.NormFloat64())
	}
	return v
}

func (a *attend) cols() int { return (a.Heads + 2*a.KVHeads) * a.Dim }

// run returns the result and the gradient of x.
func (a *attend) run(workers int, prec kernel.Precision) (y, dx []float32) {
	pool := kernel.NewPool(workers)
	defer pool.Close()
	tape := NewTape(pool)
	tape.Train, tape.Prec = true, prec
	tape.Reset(0)
	x := tape.New(len(a.x)/a.cols(), a.cols())
	copy(x.Data, a.x)
	out := tape.Attention(Heads{X: x}, Heads{X: x, Start: a.Heads * a.Dim}, Heads{X: x, Start: (a.Heads + a.KVHeads) * a.Dim}, a.queries, a.keys, a.AttentionOptions)
	out.Grad = slices.Clone(a.dy)
	tape.Backward()
	return out.Data, x.Grad
}

// want computes the same in float64 by the definition.
func (a *attend) want() (y, dx []float64) {
	y, dx = make([]float64, len(a.dy)), make([]float64, len(a.x))
	if a.Bias != nil {
		a.dtable = make([]float64, len(a.Bias.Table.Data))
	}
	group := a.Heads / a.KVHeads
	// at is where a head's element of queries (0), keys or values lies.
	at := func(row, which, h, d int) int {
		switch which {
		case 1:
			h = a.Heads + h/group
		case 2:
			h = a.Heads + a.KVHeads + h/group
		}
		return row*a.cols() + h*a.Dim + d
	}
	for seq := range len(a.keys) - 1 {
		n, queries := int(a.keys[seq+1]-a.keys[seq]), int(a.queries[seq+1]-a.queries[seq])
		first := int(a.keys[seq])
		for i := range queries {
			place := n - queries + i
			row, out := i+first, int(a.queries[seq])+i
			if a.LastQueries {
				row = first + place
			}
			for h := range a.Heads {
				p, slope, seen := make([]float64, n), make([]float64, n), make([]bool, n)
				var z float64
				for k := range p {
					switch {
					case a.Causal && (k > place || a.Window > 0 && k <= place-a.Window),
						!a.Causal && a.Window > 0 && max(place-k, k-place) > a.Window:
						continue
					}
					seen[k], slope[k] = true, 1
					for d := range a.Dim {
						p[k] += float64(a.x[at(row, 0, h, d)]) * float64(a.x[at(first+k, 1, h, d)]) * float64(a.Scale)
					}
					if c := float64(a.Softcap); c > 0 {
						tanh := math.Tanh(p[k] / c)
						p[k], slope[k] = c*tanh, 1-tanh*tanh
					}
					if a.Bias != nil {
						p[k] += float64(a.Bias.Table.Data[a.Bias.bucket(k-place)*a.Heads+h])
					}
					p[k] = math.Exp(p[k])
					z += p[k]
				}
				dp, mean := make([]float64, n), 0.0
				for k := range p {
					if !seen[k] {
						continue
					}
					p[k] /= z
					for d := range a.Dim {
						o := (out*a.Heads+h)*a.Dim + d
						v := at(first+k, 2, h, d)
						y[o] += p[k] * float64(a.x[v])
						dp[k] += float64(a.dy[o]) * float64(a.x[v])
						dx[v] += p[k] * float64(a.dy[o])
					}
					mean += p[k] * dp[k]
				}
				for k := range p {
					if !seen[k] {
						continue
					}
					if a.Bias != nil {
						a.dtable[a.Bias.bucket(k-place)*a.Heads+h] += p[k] * (dp[k] - mean)
					}
					ds := p[k] * (dp[k] - mean) * slope[k] * float64(a.Scale)
					for d := range a.Dim {
						dx[at(row, 0, h, d)] += ds * float64(a.x[at(first+k, 1, h, d)])
						dx[at(first+k, 1, h, d)] += ds * float64(a.x[at(row, 0, h, d)])
					}
				}
			}
		}
	}
	return y, dx
}

// TestAttention compares output and gradients with the definition in float64, for
// sequences of less and of more than a block of queries, of all queries and of the
// last ones only, with a head of keys for each head of queries or for several, with
// windows of less and of more than a block, with a cap and with a position bias.
func TestAttention(t *testing.T) {
	long := []int32{0, 3, 3 + 2*queryBlock + 5, 3 + 3*queryBlock + 5}
	last := []int32{0, 1, 1 + queryBlock + 9, 1 + queryBlock + 9}
	many, manyLast := []int32{0, 3, 5 + keyBlock, 10 + 2*keyBlock + queryBlock}, []int32{0, 1, 1, 1 + queryBlock + 9}
	eight := []int32{0, 4, 8, 80, 83, 84, 90, 110, 131}
	for name, a := range map[string]*attend{
		"plain":               newAttend(AttentionOptions{Heads: 2, Dim: 8}, long, long),
		"grouped":             newAttend(AttentionOptions{Heads: 6, KVHeads: 2, Dim: 5, Scale: 0.3}, long, long),
		"causal":              newAttend(AttentionOptions{Heads: 2, Dim: 8, Causal: true}, long, long),
		"causal, last":        newAttend(AttentionOptions{Heads: 2, Dim: 8, Causal: true, LastQueries: true}, last, long),
		"causal, one of keys": newAttend(AttentionOptions{Heads: 3, KVHeads: 1, Dim: 8, Causal: true}, long, long),
		"grouped, last":       newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Causal: true, LastQueries: true}, last, long),
		"window":              newAttend(AttentionOptions{Heads: 2, Dim: 8, Causal: true, Window: 20}, long, long),
		"wide window":         newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Causal: true, Window: queryBlock + 7}, long, long),
		"window, last":        newAttend(AttentionOptions{Heads: 2, Dim: 8, Causal: true, Window: 1, LastQueries: true}, last, long),
		"both sides":          newAttend(AttentionOptions{Heads: 2, Dim: 8, Window: 20}, long, long),
		"both sides, last":    newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Window: queryBlock, LastQueries: true}, last, long),
		"cap":                 newAttend(AttentionOptions{Heads: 2, Dim: 8, Softcap: 1.5}, long, long),
		"window and cap":      newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Causal: true, Window: 30, Softcap: 0.7}, long, long),
		"bias":                newAttend(AttentionOptions{Heads: 2, Dim: 8, Bias: bias(2, true)}, long, long),

		"many sequences":         newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Causal: true}, eight, eight),
		"many sequences, window": newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Window: 5}, eight, eight),

		"many keys":                   newAttend(AttentionOptions{Heads: 2, Dim: 8}, many, many),
		"many keys, causal":           newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Causal: true}, many, many),
		"many keys, last":             newAttend(AttentionOptions{Heads: 4, KVHeads: 2, Dim: 8, Causal: true, LastQueries: true}, manyLast, many),
		"many keys, window":           newAttend(AttentionOptions{Heads: 2, Dim: 8, Causal: true, Window: keyBlock + 9}, many, many),
		"many keys, both sides":       newAttend(AttentionOptions{Heads: 2, Dim: 8, Window: keyBlock / 2}, many, many),
		"many keys, cap":              newAttend(AttentionOptions{Heads: 2, Dim: 8, Softcap: 1.5, Scale: 1}, many, many),
		"many keys, bias":             newAttend(AttentionOptions{Heads: 2, Dim: 8, Causal: true, Bias: bias(2, false)}, many, many),
		"many keys, bias, both sides": newAttend(AttentionOptions{Heads: 2, Dim: 8, Bias: bias(2, true)}, many, many),
	} {
		t.Run(name, func(t *testing.T) {
			y, dx := a.run(1, kernel.FP32)
			wantY, wantX := a.want()
			golden.Near(t, "output", y, wantY, 2e-5)
			golden.Near(t, "gradient", dx, wantX, 2e-5)
			if a.Bias != nil {
				golden.NearNorm(t, "gradient of the bias", a.Bias.Table.Grad, a.dtable, 2e-5)
				a.Bias.Table.ZeroGrad()
			}
			for _, workers := range []int{2, 5} {
				if y2, dx2 := a.run(workers, kernel.FP32); !slices.Equal(y, y2) || !slices.Equal(dx, dx2) {
					t.Errorf("%d workers' bytes differ from one's", workers)
				}
			}
		})
	}
}

// bias returns a position bias of random numbers.
func bias(heads int, bidirectional bool) *PositionBias {
	w := NewWeight(8, heads)
	copy(w.Data, normal(rand.New(rand.NewPCG(9, 9)), len(w.Data), 1))
	return &PositionBias{Table: w, Bidirectional: bidirectional, MaxDistance: 200}
}

// TestAttentionDrop checks the gradient under dropout, whose mask stays the same from
// step to step, by the difference that a step along it makes, with keys in one block
// and in several.
func TestAttentionDrop(t *testing.T) {
	for _, n := range []int32{queryBlock + 20, keyBlock + queryBlock} {
		for _, causal := range []bool{true, false} {
			off := []int32{0, 5, n}
			a := newAttend(AttentionOptions{Heads: 2, KVHeads: 1, Dim: 8, Causal: causal, Drop: 0.3}, off, off)
			along := func() float64 {
				y, _ := a.run(2, kernel.FP32)
				var sum float64
				for i, v := range y {
					sum += float64(v) * float64(a.dy[i])
				}
				return sum
			}
			_, dx := a.run(2, kernel.FP32)
			x := slices.Clone(a.x)
			norm := math.Sqrt(kernel.SumSquares(dx))
			var f [2]float64
			const step = 0.1 // over all elements: its cube is far below float32's digits
			for i, sign := range []float64{1, -1} {
				for j, d := range dx {
					a.x[j] = x[j] + float32(sign*step*float64(d)/norm)
				}
				f[i] = along()
			}
			golden.NearValue(t, fmt.Sprintf("%d tokens, causal %t: slope", n, causal), (f[0]-f[1])/(2*step)/norm, 1, 1e-3)
		}
	}
}

// TestAttentionMemory: a sequence of 8,192 tokens in nine heads of width 64 takes what
// its rows take, and each worker a block of scores. Portable kernels take minutes for
// those, and a part of them says the same.
func TestAttentionMemory(t *testing.T) {
	const workers = 2
	n := 8192
	if kernel.Level() == "portable" {
		n = 1024
	}
	off := []int32{0, int32(n)}
	a := newAttend(AttentionOptions{Heads: 9, KVHeads: 3, Dim: 64, Causal: true}, off, off)
	pool := kernel.NewPool(workers)
	defer pool.Close()
	tape := NewTape(pool)
	tape.Train = true
	tape.Reset(0)
	x := &Tensor{Rows: n, Cols: a.cols(), Data: a.x}
	y := tape.Attention(Heads{X: x}, Heads{X: x, Start: a.Heads * a.Dim}, Heads{X: x, Start: (a.Heads + a.KVHeads) * a.Dim}, off, off, a.AttentionOptions)
	y.Grad = a.dy
	tape.Backward()
	arena := &tape.arenas[0]
	floats := arena.used // of the last block, whose rest the system never gives
	for _, b := range arena.blocks[:arena.at] {
		floats += b.size
	}
	for _, b := range slices.Concat(tape.grads.all, tape.work) {
		floats += cap(b)
	}
	// The result, two numbers a row and head, and, with room to grow, the gradients of x
	// and of keys and values by two heads of each group.
	rows := n * (a.Heads*a.Dim + 2*a.Heads + (a.cols()+2*(a.Heads-a.KVHeads)*a.Dim)*5/4)
	blocks := workers * queryBlock * (4*keyBlock + a.Dim) * 5 / 4
	if floats > rows+blocks {
		t.Errorf("%d floats, expected at most %d for the rows and %d for blocks of scores", floats, rows, blocks)
	}
}

// TestAttentionGolden compares with the functions of transformers' models
// (scripts/goldens/ops.py).
func TestAttentionGolden(t *testing.T) {
	g, cases := openOps[struct {
		Heads, KVHeads, Dim int
		Causal              bool
		Window              int     `json:"window,omitempty"`
		Softcap             float32 `json:"softcap,omitempty"`
		Scale               float32 `json:"scale,omitempty"`
	}](t, "attention")
	for i, c := range cases {
		a := newAttend(AttentionOptions{Heads: c.Heads, KVHeads: c.KVHeads, Dim: c.Dim, Causal: c.Causal, Window: c.Window, Softcap: c.Softcap, Scale: c.Scale},
			[]int32{0, 1, 8, 20}, []int32{0, 1, 8, 20})
		a.x, a.dy = g.Floats(fmt.Sprint(i, ".x")), g.Floats(fmt.Sprint(i, ".dy"))
		y, dx := a.run(2, kernel.FP32)
		golden.Near(t, fmt.Sprint(c, " output"), y, g.Floats(fmt.Sprint(i, ".y")), 1e-6)
		golden.Near(t, fmt.Sprint(c, " gradient"), dx, g.Floats(fmt.Sprint(i, ".dx")), 2e-6)
	}
}

// TestWindowSkips checks that keys far from a query are not read at all.
func TestWindowSkips(t *testing.T) {
	const window, n = 10, 3 * queryBlock
	off := []int32{0, n}
	for _, causal := range []bool{true, false} {
		a := newAttend(AttentionOptions{Heads: 2, Dim: 4, Causal: causal, Window: window}, off, off)
		for i := range a.cols() { // of the middle block's first token
			a.x[queryBlock*a.cols()+i] = float32(math.NaN())
		}
		y, _ := a.run(1, kernel.FP32)
		for i, v := range y[2*queryBlock*a.Heads*a.Dim:] {
			if v != v {
				t.Fatalf("causal %t: element %d of the last block has seen a key outside of its window", causal, i)
			}
		}
		if causal && slices.ContainsFunc(y[:queryBlock*a.Heads*a.Dim], func(v float32) bool { return v != v }) {
			t.Error("the first block has seen a later key")
		}
	}
}

// TestPast compares attention to a cache, which is filled token by token, in parts
// or at once, with attention to all tokens; a sequence that is forked midway
// included.
func TestPast(t *testing.T) {
	const tokens = 3*pageTokens + 5
	for _, opt := range []AttentionOptions{
		{Heads: 2, Dim: 8, Causal: true}, {Heads: 6, KVHeads: 2, Dim: 8, Causal: true},
		{Heads: 4, KVHeads: 2, Dim: 8, Causal: true, Window: pageTokens + 3, Softcap: 1.5},
	} {
		a := newAttend(opt, []int32{0, tokens}, []int32{0, tokens})
		want, _ := a.run(1, kernel.FP32)
		for _, part := range []int{1, 7, tokens} {
			t.Run(fmt.Sprint(opt.KVHeads, opt.Window, part), func(t *testing.T) {
				pool := kernel.NewPool(2)
				defer pool.Close()
				tape := NewTape(pool)
				cache := NewCache(2, a.KVHeads, a.Dim)
				// attend gives sequence s its tokens from one on, this many.
				attend := func(s int32, from, n int) {
					tape.Reset(0)
					cache.Grow(s, n)
					x := tape.New(n, a.cols())
					copy(x.Data, a.x[from*a.cols():])
					opt := a.AttentionOptions
					opt.Past = &Past{Cache: cache, Layer: 1, Sequences: []int32{s}}
					off := []int32{0, int32(n)}
					y := tape.Attention(Heads{X: x}, Heads{X: x, Start: a.Heads * a.Dim}, Heads{X: x, Start: (a.Heads + a.KVHeads) * a.Dim}, off, off, opt)
					cache.Grown(s)
					golden.Near(t, fmt.Sprintf("from token %d on", from), y.Data, want[from*y.Cols:(from+n)*y.Cols], 1e-5)
				}
				s := cache.New()
				var forked []int32
				for from := 0; from < tokens; from += part {
					if from > tokens/2 { // go on with a copy
						forked = append(forked, s)
						s = cache.Fork(s)
					}
					attend(s, from, min(part, tokens-from))
				}
				for _, s := range forked { // what was copied is as it was
					attend(s, cache.Len(s), 1)
				}
			})
		}
	}
}
