package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestQuantize: no element is off by more than half a step, of which the largest element
// of a column is 127; zeros and columns below the normal numbers become zeros.
func TestQuantize(t *testing.T) {
	const n, rows = 5, 32
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, n*rows)
	for i := range x {
		size := []float32{1, 1e-30, 1e30, 0, 1e-42}[i%n]
		x[i] = size * float32(r.NormFloat64())
	}
	factors, q := make([]float32, n), make([]int8, n*rows)
	quantize(factors, q, x)
	for j, f := range factors {
		most := int8(0)
		for i := j; i < len(x); i += n {
			most = max(most, q[i], -q[i])
			near(t, "element", i, f*float32(q[i]), float64(x[i]), float64(f)*0.50002+0x1p-119)
		}
		if want := []int8{127, 127, 127, 0, 0}[j]; most != want {
			t.Errorf("the largest element of column %d is %d, want %d", j, most, want)
		}
	}
}

// TestGemmInt8: a product with packed int8 is, byte for byte, float32's with the values
// that the numbers and their factors stand for.
func TestGemmInt8(t *testing.T) {
	each(t, tables{&gemms[INT8], &gemms[FP32]}, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		p := NewPool(2)
		defer p.Close()
		fn := &gemms[INT8]
		use := fn.use
		if use != nil {
			small := *use
			small.kc = 64
			use, gemms[FP32].use = &small, &small
		}
		try := func(m, n, k int) {
			g := newGemmCase(r, INT8, m, n, k, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(allEpilogues)&^(withAccumulate*r.IntN(2)))
			if g.ep.Accumulate {
				g.ep = Epilogue{Accumulate: true, Bias: g.ep.Bias}
			}
			fn.use = nil
			values := p.PackB(INT8, k, n, g.b)
			fn.use = use
			packed := p.PackB(INT8, k, n, g.b)
			p.Gemm(FP32, m, n, k, g.a, Mat{Data: values.data, Stride: n}, g.c, g.ldc, g.ep)
			want, wantD := slices.Clone(g.c), slices.Clone(g.ep.Deriv)
			g.reset()
			poison(p.scratch[0])
			poison(p.scratch[1])
			p.GemmPacked(m, g.a, packed, g.c, g.ldc, g.ep)
			for i := range want {
				if math.Float32bits(g.c[i]) != math.Float32bits(want[i]) {
					t.Fatalf("element %d is %v, want %v\n%v", i, g.c[i], want[i], g)
				}
			}
			for i := range wantD {
				if math.Float32bits(g.ep.Deriv[i]) != math.Float32bits(wantD[i]) {
					t.Fatalf("derivative %d is %v, want %v\n%v", i, g.ep.Deriv[i], wantD[i], g)
				}
			}
			for _, c := range g.checks {
				if err := c(); err != nil {
					t.Fatalf("%v\n%v", err, g)
				}
			}
		}
		for k := range 70 {
			try(1+r.IntN(25), 1+r.IntN(70), k)
		}
		for m := range 26 {
			try(m, 1+r.IntN(70), 1+r.IntN(200))
		}
		for n := range 70 {
			try(1+r.IntN(25), n, 1+r.IntN(100))
		}
	})
}
