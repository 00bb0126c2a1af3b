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
// windows of less and of more than a block, and with a cap.
func TestAttention(t *testing.T) {
	long := []int32{0, 3, 3 + 2*queryBlock + 5, 3 + 3*queryBlock + 5}
	last := []int32{0, 1, 1 + queryBlock + 9, 1 + queryBlock + 9}
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
	} {
		t.Run(name, func(t *testing.T) {
			y, dx := a.run(1, kernel.FP32)
			wantY, wantX := a.want()
			golden.Near(t, "output", y, wantY, 2e-5)
			golden.Near(t, "gradient", dx, wantX, 2e-5)
			for _, workers := range []int{2, 5} {
				if y2, dx2 := a.run(workers, kernel.FP32); !slices.Equal(y, y2) || !slices.Equal(dx, dx2) {
					t.Errorf("%d workers' bytes differ from one's", workers)
				}
			}
		})
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
				s := cache.New()
				for from := 0; from < tokens; from += part {
					n := min(part, tokens-from)
					if from > tokens/2 { // go on with a copy
						fork := cache.Fork(s)
						cache.Free(s)
						s = fork
					}
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
			})
		}
	}
}
