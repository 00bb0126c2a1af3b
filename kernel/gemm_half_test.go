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

// TestGemmHalf: a product with bfloat16 bits is, byte for byte, that with their values,
// in every way to compute it.
func TestGemmHalf(t *testing.T) {
	eachGemm(t, func(t *testing.T, prec Precision) {
		r := rand.New(rand.NewPCG(21, 22))
		p := NewPool(2)
		defer p.Close()
		try := func(m, n, k int) {
			g := newGemmCase(r, prec, m, n, k, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(8))
			half := Mat{Half: make([]uint16, len(g.b.Data)), Stride: g.b.Stride, T: g.b.T}
			for i, v := range g.b.Data {
				half.Half[i] = ToBF16(v)
				g.b.Data[i] = FromBF16(half.Half[i])
			}
			for _, way := range []func(b Mat){
				func(b Mat) { p.Gemm(prec, m, n, k, g.a, b, g.c, g.ldc, g.ep) },
				func(b Mat) { p.Scratch(0).Gemm(prec, m, n, k, g.a, b, g.c, g.ldc, g.ep) },
				func(b Mat) { p.GemmPacked(m, g.a, p.PackB(prec, k, n, b), g.c, g.ldc, g.ep) },
				func(b Mat) { p.GemmPacked(m, g.a, p.PackB(INT8, k, n, b), g.c, g.ldc, g.ep) },
			} {
				var want []float32
				for _, b := range []Mat{g.b, half} {
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
