package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestGemmGroup tries that products computed together are, to the last bit, what
// Gemm gives one by one, for any number of workers, packed or not, empty ones
// among them, and that nothing else is written or allocated.
func TestGemmGroup(t *testing.T) {
	eachGemm(t, func(t *testing.T, prec Precision) {
		r := rand.New(rand.NewPCG(11, 12))
		for _, workers := range []int{1, 2, 3} {
			p := NewPool(workers)
			defer p.Close()
			for range 4 {
				var cases []*gemmCase
				var group []Product
				var want [][]float32
				for range 1 + r.IntN(6) {
					m, n, k := r.IntN(90), 1+r.IntN(200), 1+r.IntN(300)
					g := newGemmCase(r, prec, m, n, k, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(8))
					g.run(p)
					want = append(want, slices.Clone(g.c))
					x := Product{M: m, N: n, K: k, A: g.a, B: g.b, C: g.c, LDC: g.ldc, Epilogue: g.ep}
					if r.IntN(3) == 0 {
						x.B, x.Packed = Mat{}, p.PackB(prec, k, n, g.b)
					}
					cases, group = append(cases, g), append(group, x)
				}
				run := func() {
					for _, g := range cases {
						g.reset()
					}
					p.GemmGroup(prec, group)
				}
				run()
				for i, g := range cases {
					for j, v := range g.c {
						if math.Float32bits(v) != math.Float32bits(want[i][j]) {
							t.Fatalf("%d workers, product %d of %d: element %d differs\n%v", workers, i, len(cases), j, g)
						}
					}
					for _, check := range g.checks {
						if err := check(); err != nil {
							t.Fatalf("%v\n%v", err, g)
						}
					}
				}
				if !interpreting {
					if n := steadyAllocs(run); n != 0 {
						t.Errorf("%v allocations a run", n)
					}
				}
			}
			p.GemmGroup(FP32, nil)
		}
	})
}

// TestGemmGroupPanics holds each product to Gemm's checks.
func TestGemmGroupPanics(t *testing.T) {
	p := NewPool(1)
	defer p.Close()
	x := make([]float32, 12)
	ok := Product{M: 3, N: 4, K: 4, A: Mat{Data: x, Stride: 4}, B: Mat{Data: make([]float32, 16), Stride: 4}, C: x, LDC: 4}
	short := ok
	short.B.Data = x
	defer func() {
		if recover() == nil {
			t.Error("the second product's B is too short, and nothing panicked")
		}
	}()
	p.GemmGroup(FP32, []Product{ok, short})
}
