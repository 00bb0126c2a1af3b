package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestWiden(t *testing.T) {
	each(t, tables{&widenWhole}, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		for _, n := range lengths() {
			src := make([]uint16, n, n+1)
			for i := range src {
				src[i] = uint16(r.Uint32())
			}
			a := newArena(uint64(n), n%8)
			dst := a.slice(n)
			Widen(dst, src)
			for i, b := range src {
				if math.Float32bits(dst[i]) != uint32(b)<<16 {
					t.Fatalf("element %d of %d is %#x, want %#x", i, n, math.Float32bits(dst[i]), uint32(b)<<16)
				}
			}
			a.check(t)
		}
	})
}

func TestWidenInt8(t *testing.T) {
	each(t, tables{&widenBytes}, func(t *testing.T) {
		r := rand.New(rand.NewPCG(2, 1))
		for _, n := range lengths() {
			src := make([]int8, n, n+1)
			for i := range src {
				src[i] = int8(r.Uint32())
			}
			factor := float32(r.NormFloat64())
			a := newArena(uint64(n), n%8)
			dst := a.slice(n)
			WidenInt8(dst, src, factor)
			for i, q := range src {
				if math.Float32bits(dst[i]) != math.Float32bits(factor*float32(q)) {
					t.Fatalf("element %d of %d is %v, want %v·%d", i, n, dst[i], factor, q)
				}
			}
			a.check(t)
		}
	})
}

// TestGemmNarrow: a product with bfloat16 bits, or with whole numbers and their factors,
// is, byte for byte, that with their values, in every way to compute it.
func TestGemmNarrow(t *testing.T) {
	eachGemm(t, func(t *testing.T, prec Precision) {
		r := rand.New(rand.NewPCG(21, 22))
		p := NewPool(2)
		defer p.Close()
		try := func(m, n, k int) {
			g := newGemmCase(r, prec, m, n, k, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(8))
			narrow := Mat{Stride: g.b.Stride, T: g.b.T}
			if r.IntN(2) == 0 {
				narrow.Half = make([]uint16, len(g.b.Data))
				for i, v := range g.b.Data {
					narrow.Half[i] = ToBF16(v)
					g.b.Data[i] = FromBF16(narrow.Half[i])
				}
			} else {
				narrow.Int8 = make([]int8, len(g.b.Data))
				rows, cols := k, n
				if g.b.T {
					rows, cols = n, k
				}
				narrow.Factors = make([]float32, rows)
				for i := range rows * min(cols, 1) {
					at := i * g.b.Stride
					row, q := g.b.Data[at:at+cols], narrow.Int8[at:at+cols]
					narrow.Factors[i] = ToInt8(q, row)
					WidenInt8(row, q, narrow.Factors[i])
				}
			}
			for _, way := range []func(b Mat){
				func(b Mat) { p.Gemm(prec, m, n, k, g.a, b, g.c, g.ldc, g.ep) },
				func(b Mat) { p.Scratch(0).Gemm(prec, m, n, k, g.a, b, g.c, g.ldc, g.ep) },
				func(b Mat) { p.GemmPacked(m, g.a, p.PackB(prec, k, n, b), g.c, g.ldc, g.ep) },
				func(b Mat) { p.GemmPacked(m, g.a, p.PackB(INT8, k, n, b), g.c, g.ldc, g.ep) },
			} {
				var want []float32
				for _, b := range []Mat{g.b, narrow} {
					g.reset()
					poison(p.scratch[0])
					poison(p.scratch[1])
					way(b)
					if want == nil {
						want = slices.Clone(g.c)
						continue
					}
					for i, v := range g.c {
						if math.Float32bits(v) != math.Float32bits(want[i]) {
							t.Fatalf("element %d is %v, want %v\n%v", i, v, want[i], g)
						}
					}
				}
			}
		}
		for m := range 14 {
			for n := range 36 {
				try(m, n, r.IntN(40))
			}
		}
		for k := range 40 {
			try(1+r.IntN(40), 1+r.IntN(70), k)
		}
		for range 6 {
			try(1+r.IntN(60), 1+r.IntN(200), 800+r.IntN(400))
			try(manyRows+r.IntN(10), 1+r.IntN(40), 1+r.IntN(50))
		}
	})
}
