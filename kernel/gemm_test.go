package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// guard is what memory that nobody may touch is filled with: a NaN.
var guard = math.Float32frombits(guardBits)

const guardBits = 0x7fe5a5a5

// guarded returns a rows×cols matrix of random numbers in a larger buffer, at an
// offset that is not aligned, with a stride of cols+gap, all else filled with
// the guard; and a check that the filling is still there.
func guarded(r *rand.Rand, rows, cols, gap int) (data []float32, check func() error) {
	return guardedAt(r, 19, rows, cols, gap)
}

// guardedAt is guarded with this many floats before the matrix; a multiple of 16 places
// it at the beginning of a line of the cache.
func guardedAt(r *rand.Rand, before, rows, cols, gap int) (data []float32, check func() error) {
	const after = 37
	stride := cols + gap
	size := 0
	if rows > 0 && cols > 0 {
		size = (rows-1)*stride + cols
	}
	all := make([]float32, before+size+after+16)
	for before%16 == 0 && uintptr(unsafe.Pointer(&all[before]))%64 != 0 {
		all = all[1:]
	}
	for i := range all {
		all[i] = guard
	}
	data = all[before : before+size : before+size]
	for i := range rows {
		for j := range cols {
			data[i*stride+j] = r.Float32()*2 - 1
		}
	}
	return data, func() error {
		for i, v := range all {
			if o := i - before; o >= 0 && o < size && o%stride < cols {
				continue
			}
			if math.Float32bits(v) != guardBits {
				return fmt.Errorf("wrote to element %d of a %d×%d matrix of stride %d", i-before, rows, cols, stride)
			}
		}
		return nil
	}
}

// gemmCase is one product, its operands in guarded memory.
type gemmCase struct {
	prec    Precision
	m, n, k int
	a, b    Mat
	c, c0   []float32
	ldc     int
	ep      Epilogue
	checks  []func() error
}

// Bits of the epilogue of a case.
const (
	withAlpha = 1 << iota
	withAccumulate
	withBias
	withAdd
	withAct
	withScale
	withDeriv
	withMul
	allEpilogues = 1 << iota
)

func newGemmCase(r *rand.Rand, prec Precision, m, n, k int, at, bt bool, bits int) *gemmCase {
	g := &gemmCase{prec: prec, m: m, n: n, k: k}
	mat := func(rows, cols, gap int) []float32 {
		data, check := guarded(r, rows, cols, gap)
		g.checks = append(g.checks, check)
		return data
	}
	operand := func(rows, cols int, t bool) Mat {
		if t {
			rows, cols = cols, rows
		}
		gap := r.IntN(4)
		if r.IntN(8) == 0 {
			gap = 1024 - cols%1024 // rows that crowd one cache set
		}
		return Mat{Data: mat(rows, cols, gap), Stride: cols + gap, T: t}
	}
	g.a, g.b = operand(m, k, at), operand(k, n, bt)
	gap := r.IntN(4)
	before := 19
	if g.ep.Stream = r.IntN(2) == 0; g.ep.Stream && r.IntN(4) > 0 {
		before, gap = 32, part(n, 1, 16)-n
	}
	g.ldc = n + gap
	c, check := guardedAt(r, before, m, n, gap)
	g.c, g.checks = c, append(g.checks, check)
	g.c0 = slices.Clone(g.c)
	if bits&withAlpha != 0 {
		g.ep.Alpha = 0.37
	}
	g.ep.Accumulate = bits&withAccumulate != 0
	if bits&withBias != 0 {
		g.ep.Bias = mat(1, n, 0)
	}
	if bits&withAdd != 0 {
		g.ep.Add = mat(m, n, gap)
	}
	if bits&withAct != 0 {
		g.ep.Act = GELU
	}
	if bits&withScale != 0 {
		g.ep.Scale = mat(1, n, 0)
	}
	if bits&withDeriv != 0 {
		g.ep.Deriv = mat(m, n, gap)
	}
	if bits&withMul != 0 {
		g.ep.Mul = mat(m, n, gap)
	}
	return g
}

func (g *gemmCase) reset() { copy(g.c, g.c0) }

func (g *gemmCase) run(p *Pool) {
	p.Gemm(g.prec, g.m, g.n, g.k, g.a, g.b, g.c, g.ldc, g.ep)
}

// check compares C and Deriv with the product in float64. A float32 sum of k
// products, in whatever order and blocks, is off by at most (k+3)·ε·Σ|a||b|; the
// epilogue adds a few roundings of its own, of numbers no larger than the bound
// below, and σ and σ' (slopes ≤ 1.2) pass on what they are given.
func (g *gemmCase) check() error {
	const eps = 1.0 / (1 << 24)
	a, b := g.values(g.a, g.m, g.k, true), g.values(g.b, g.k, g.n, false)
	for i := range g.m {
		for j := range g.n {
			var sum, abs float64
			row, col := a[i*g.k:(i+1)*g.k], b[j*g.k:(j+1)*g.k]
			for l, x := range row {
				v := x * col[l]
				sum += v
				abs += math.Abs(v)
			}
			alpha := 1.0
			if g.ep.Alpha != 0 {
				alpha = float64(g.ep.Alpha)
			}
			o := i*g.ldc + j
			v, size := alpha*sum, math.Abs(alpha)*abs
			if g.ep.Accumulate {
				v += float64(g.c0[o])
				size += math.Abs(float64(g.c0[o]))
			}
			if g.ep.Bias != nil {
				v += float64(g.ep.Bias[j])
				size += math.Abs(float64(g.ep.Bias[j]))
			}
			if g.ep.Add != nil {
				v += float64(g.ep.Add[o])
				size += math.Abs(float64(g.ep.Add[o]))
			}
			tol := float64(g.k+8) * eps * (size + 1e-30)
			f, d := v, 1.0
			if g.ep.Act == GELU {
				cdf := 0.5 * math.Erfc(-v/math.Sqrt2)
				f, d = v*cdf, cdf+v*math.Exp(-0.5*v*v)/math.Sqrt(2*math.Pi)
				tol = 1.2*tol + 16*eps*(1+math.Abs(v)) // the activation's own error
			}
			scale := 1.0
			if g.ep.Scale != nil {
				scale = float64(g.ep.Scale[j])
			}
			if g.ep.Deriv != nil {
				if got := float64(g.ep.Deriv[o]); !(math.Abs(got-scale*d) <= tol+8*eps) {
					return fmt.Errorf("Deriv[%d][%d] = %v, want %v ± %v", i, j, got, scale*d, tol)
				}
			}
			want := scale * f
			if g.ep.Mul != nil {
				want *= float64(g.ep.Mul[o])
			}
			if got := float64(g.c[o]); !(math.Abs(got-want) <= tol) {
				return fmt.Errorf("C[%d][%d] = %v, want %v ± %v", i, j, got, want, tol)
			}
		}
	}
	for _, c := range g.checks {
		if err := c(); err != nil {
			return err
		}
	}
	return nil
}

// values returns an operand as the product reads it, in float64, by rows or by
// columns.
func (g *gemmCase) values(m Mat, rows, cols int, byRow bool) []float64 {
	x := make([]float64, 0, rows*cols)
	outer, inner, transposed := rows, cols, m.T
	if !byRow {
		outer, inner, transposed = cols, rows, !m.T
	}
	for i := range outer {
		for j := range inner {
			o := i*m.Stride + j
			if transposed {
				o = j*m.Stride + i
			}
			x = append(x, float64(round(g.prec, m.Data[o])))
		}
	}
	return x
}

func (g *gemmCase) String() string {
	return fmt.Sprintf("prec %d, %d×%d×%d, T %v %v, strides %d %d %d, %+v",
		g.prec, g.m, g.n, g.k, g.a.T, g.b.T, g.a.Stride, g.b.Stride, g.ldc, g.ep)
}

// eachGemm runs a test with each implementation of the product at each precision. Its
// blocks are made small, so that products of moderate size have many.
func eachGemm(t *testing.T, test func(t *testing.T, prec Precision)) {
	for prec, name := range []string{"fp32", "bf16"} {
		t.Run(name, func(t *testing.T) {
			fn := &gemms[prec]
			each(t, tables{fn}, func(t *testing.T) {
				if fn.use != nil {
					small := *fn.use
					small.kc, small.mc = small.kc/8, 2*small.mr
					fn.use = &small
				}
				test(t, Precision(prec))
			})
		})
	}
}

// TestGemmEdges goes through small sizes, where every kind of edge occurs.
func TestGemmEdges(t *testing.T) {
	eachGemm(t, func(t *testing.T, prec Precision) {
		r := rand.New(rand.NewPCG(1, 2))
		p := NewPool(1)
		defer p.Close()
		try := func(m, n, k int) {
			g := newGemmCase(r, prec, m, n, k, r.IntN(2) == 1, r.IntN(2) == 1, r.IntN(2)*(withAlpha|withAccumulate))
			poison(p.scratch[0])
			if r.IntN(2) == 0 {
				g.run(p)
			} else {
				p.GemmPacked(m, g.a, p.PackB(prec, k, n, g.b), g.c, g.ldc, g.ep)
			}
			if err := g.check(); err != nil {
				t.Fatalf("%v\n%v", err, g)
			}
		}
		for m := range 14 { // both heights of a tile, alone and together
			for n := range 40 {
				for _, k := range []int{0, 1, 2 + r.IntN(3), 5 + r.IntN(3), 8, 9 + r.IntN(8), 17 + r.IntN(16)} {
					try(m, n, k)
				}
			}
		}
		for k := range 40 {
			for _, m := range []int{1, 6, 7, 16, 17, 25, 31, 32, 40} {
				for _, n := range []int{1, 8, 16, 31, 32, 33} {
					try(m, n, k)
				}
			}
		}
	})
}

// poison fills a worker's memory with NaN: what a product reads of it without having
// written it must not count.
func poison(s *Scratch) {
	for _, m := range [][]float32{s.a, s.b, s.c, s.copied, s.wide} {
		m = m[:cap(m)]
		for i := range m {
			m[i] = float32(math.NaN())
		}
	}
}

// TestGemmEpilogues tries every combination of the epilogue's parts.
func TestGemmEpilogues(t *testing.T) {
	eachGemm(t, func(t *testing.T, prec Precision) {
		r := rand.New(rand.NewPCG(3, 4))
		p := NewPool(2)
		defer p.Close()
		for bits := range allEpilogues {
			if bits&withAccumulate != 0 && bits&(withAct|withScale|withDeriv|withMul) != 0 {
				continue
			}
			g := newGemmCase(r, prec, 13+r.IntN(8), 20+r.IntN(30), r.IntN(30), bits/5%2 == 0, bits/7%2 == 0, bits)
			g.run(p)
			if err := g.check(); err != nil {
				t.Fatalf("%v\n%v", err, g)
			}
		}
	})
}

// TestGemmLarge tries shapes of several blocks, and that any number of workers,
// Scratch.Gemm and packed operands give the same bytes.
func TestGemmLarge(t *testing.T) {
	eachGemm(t, func(t *testing.T, prec Precision) {
		r := rand.New(rand.NewPCG(5, 6))
		pools := []*Pool{NewPool(1), NewPool(2), NewPool(3)}
		for _, p := range pools {
			defer p.Close()
		}
		for i := range 6 {
			m, n, k := 1+r.IntN(100), 1+r.IntN(200), 1+r.IntN(300)
			switch i % 3 {
			case 1: // several blocks of k
				m, n, k = 1+r.IntN(60), 1+r.IntN(40), 800+r.IntN(400)
			case 2: // this many rows that B is packed before
				m, n, k = manyRows+r.IntN(40), 1+r.IntN(40), 1+r.IntN(50)
			}
			g := newGemmCase(r, prec, m, n, k, r.IntN(2) == 0, i%2 == 0, r.IntN(8))
			var first []float32
			for w := range 5 {
				g.reset()
				switch w {
				case 3:
					new(Scratch).Gemm(g.prec, m, n, k, g.a, g.b, g.c, g.ldc, g.ep)
				case 4:
					p := pools[1]
					packed := p.PackB(g.prec, k, n, g.b)
					p.GemmPacked(m, g.a, packed, g.c, g.ldc, g.ep)
				default:
					g.run(pools[w])
				}
				if w == 0 {
					if err := g.check(); err != nil {
						t.Fatalf("%v\n%v", err, g)
					}
					first = slices.Clone(g.c)
					continue
				}
				for i, v := range g.c {
					if math.Float32bits(v) != math.Float32bits(first[i]) {
						t.Fatalf("way %d: element %d differs\n%v", w, i, g)
					}
				}
			}
		}
	})
}

// TestGemmBlocks multiplies with blocks as large as they are in use.
func TestGemmBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	p := NewPool(2)
	defer p.Close()
	for i := range 8 {
		g := newGemmCase(r, Precision(i%2), 1+r.IntN(200), 1+r.IntN(600), 1+r.IntN(1000)+i/4*2000, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(8))
		g.run(p)
		if err := g.check(); err != nil {
			t.Fatalf("%v\n%v", err, g)
		}
	}
}

// TestGemmNoAllocation tries that products stop allocating once the scratch
// memory has grown.
func TestGemmNoAllocation(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	p := NewPool(2)
	defer p.Close()
	for i := range 16 {
		g := newGemmCase(r, Precision(i/4%2), []int{50, manyRows}[i/8], 70, 90, i%2 == 1, i/2%2 == 1, withBias|withAct|withDeriv|withMul|withAdd|withScale)
		s := p.Scratch(0)
		if n := steadyAllocs(func() {
			g.run(p)
			s.Gemm(g.prec, g.m, g.n, g.k, g.a, g.b, g.c, g.ldc, g.ep)
		}); n != 0 {
			t.Errorf("%v allocations a run: %v", n, g)
		}
	}
}

// steadyAllocs returns the allocations of f once memory has grown. On a busy
// machine a worker may sleep through many runs and grow its own only then.
func steadyAllocs(f func()) (n float64) {
	for range 10 {
		if n = testing.AllocsPerRun(5, f); n == 0 {
			break
		}
	}
	return n
}

func TestGemmPanics(t *testing.T) {
	x := make([]float32, 12)
	ok := Mat{Data: x, Stride: 4}
	for name, f := range map[string]func(*Pool){
		"a":    func(p *Pool) { p.Gemm(FP32, 4, 4, 3, ok, ok, x, 4, Epilogue{}) },
		"b":    func(p *Pool) { p.Gemm(FP32, 3, 4, 4, ok, ok, x, 4, Epilogue{}) },
		"c":    func(p *Pool) { p.Gemm(FP32, 3, 4, 3, ok, ok, x, 5, Epilogue{}) },
		"bias": func(p *Pool) { p.Gemm(FP32, 3, 4, 3, ok, ok, x, 4, Epilogue{Bias: x[:3]}) },
		"half": func(p *Pool) { p.Gemm(FP32, 3, 4, 3, Mat{Half: make([]uint16, 12), Stride: 4}, ok, x, 4, Epilogue{}) },
		"act":  func(p *Pool) { p.Gemm(FP32, 3, 4, 3, ok, ok, x, 4, Epilogue{Act: GELU, Accumulate: true}) },
		"size": func(p *Pool) { p.Gemm(FP32, -1, 4, 3, ok, ok, x, 4, Epilogue{}) },
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPool(1)
			defer p.Close()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(p)
		})
	}
}
