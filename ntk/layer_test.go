package ntk

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// randomLayer is a layer of small whole numbers, so that its gradients are exact,
// signs and zeros included.
func randomLayer(rng *rand.Rand, in, out, tokens int, bias, masked bool) layer {
	fill := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.IntN(9) - 4)
		}
		return x
	}
	l := layer{x: fill(tokens * in), d: fill(tokens * out), in: in, out: out, bias: bias}
	if masked {
		l.mask = fill(in * out)
		for i := range l.mask {
			if i%3 == 0 {
				l.mask[i] = 0
			}
		}
	}
	return l
}

// direct computes both kernels in float64 from gradients that it holds.
func direct(layers []layer, offsets []int32) (adam, sgd []float64) {
	n := len(offsets) - 1
	g := make([][]float64, n)
	for e := range n {
		for _, l := range layers {
			w, b := make([]float64, l.in*l.out), make([]float64, l.out)
			for t := int(offsets[e]); t < int(offsets[e+1]); t++ {
				for o := range l.out {
					d := float64(l.d[t*l.out+o])
					b[o] += d
					for i := range l.in {
						if l.mask == nil || l.mask[o*l.in+i] != 0 {
							w[o*l.in+i] += d * float64(l.x[t*l.in+i])
						}
					}
				}
			}
			g[e] = append(g[e], w...)
			if l.bias {
				g[e] = append(g[e], b...)
			}
		}
	}
	adam, sgd = make([]float64, n*n), make([]float64, n*n)
	for i := range n {
		for j := range n {
			for k, v := range g[i] {
				sgd[i*n+j] += v * g[j][k]
				if s := g[j][k]; s != 0 {
					adam[i*n+j] += math.Copysign(v, v*s)
				}
			}
		}
	}
	return adam, sgd
}

// TestWays computes the kernels of random layers in every way there is: SGD's by
// tokens, by parameters and mixed (the smaller the blocks, the more), wide and
// narrow layers, with and without biases and masks, one token an example or none. The
// bound is float32's rounding in the sums over parameters, some 1e-7, with a
// margin of ten.
func TestWays(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	ctx, quiet := context.Background(), func(float64) {}
	for _, lengths := range [][]int{{1, 1, 1, 1, 1}, {0, 0, 1, 1, 2, 3, 3, 5, 9, 30, 31}, {4}, {2, 2, 2, 40}, {0, 2, 1}} {
		for _, size := range [][2]int{{6, 11}, {300, 20}, {5, 3}, {40, 41}} {
			for variant := range 4 {
				rng := rand.New(rand.NewPCG(1, uint64(variant)))
				offsets := []int32{0}
				for _, l := range lengths {
					offsets = append(offsets, offsets[len(offsets)-1]+int32(l))
				}
				n, tokens := len(lengths), int(offsets[len(lengths)])
				bias, masked := variant&1 == 1, variant&2 == 2
				layers := []layer{
					randomLayer(rng, size[0], size[1], tokens, bias, masked),
					randomLayer(rng, size[1], size[0], tokens, bias, false),
				}
				wantAdam, wantSGD := direct(layers, offsets)
				name := fmt.Sprint(lengths, size, " bias ", bias, " masked ", masked)
				k, err := adam(ctx, pool, layers, offsets, false, quiet)
				if err != nil {
					t.Fatal(err)
				}
				golden.NearNorm(t, name+": Adam's kernel", k, wantAdam, 1e-6)
				// Whole numbers round each gradient by up to 2⁻¹⁶ of the largest, which
				// is at most six times the mean.
				k, err = adam(ctx, pool, layers, offsets, true, quiet)
				if err != nil {
					t.Fatal(err)
				}
				golden.NearNorm(t, name+": Adam's kernel in whole numbers", k, wantAdam, 1e-4)
				if (&factors{offsets: offsets}).single() && !masked {
					golden.NearNorm(t, name+": Adam's kernel of single tokens", singleAdam(pool, layers, n), wantAdam, 1e-6)
				}
				order := make([]int32, n)
				for i := range order {
					order[i] = int32(i)
				}
				// bfloat16 rounds each gradient by up to 2⁻⁹ of it.
				for prec, most := range map[kernel.Precision]float64{kernel.FP32: 1e-6, kernel.BF16: 1.0 / 256} {
					for _, block := range []int{1, 2, 5, 64} {
						k, err := sgd(ctx, pool, layers, offsets, block, prec, quiet)
						if err != nil {
							t.Fatal(err)
						}
						golden.NearNorm(t, fmt.Sprintf("%s: SGD's kernel in blocks of %d, precision %d", name, block, prec), unsort(k, order), wantSGD, most)
					}
				}
			}
		}
	}
}

// TestSGDPrecision: at the precision of a layer that is just large enough, the
// kernel lies within 2e-4 of that of exact gradients, as docs/ntk.md promises.
func TestSGDPrecision(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	const n, side = 24, 256
	offsets := []int32{0}
	for i := range n {
		offsets = append(offsets, offsets[i]+int32(12+i))
	}
	rng := rand.New(rand.NewPCG(6, 7))
	l := layer{x: make([]float32, offsets[n]*side), d: make([]float32, offsets[n]*side), in: side, out: side, bias: true}
	for i := range l.x {
		l.x[i], l.d[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
	}
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	layers := []layer{l}
	_, want := direct(layers, offsets)
	k, err := sgd(context.Background(), pool, layers, offsets, n, sgdPrecision(layers), func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	golden.NearNorm(t, "kernel", unsort(k, order), want, 2e-4)
	if narrow := []layer{l, {in: side, out: side - 1}}; sgdPrecision(narrow) != kernel.FP32 {
		t.Error("a smaller layer's gradients are rounded")
	}
}

// TestSigns: the sign of zeros of either sign is 0, as torch.sign's.
func TestSigns(t *testing.T) {
	x := []float32{0, float32(math.Copysign(0, -1)), 2, -3, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, math.MaxFloat32}
	want := []float32{0, 0, 1, -1, 1, -1, 1}
	s := make([]float32, len(x))
	signs(s, x)
	for i := range want {
		if s[i] != want[i] {
			t.Errorf("sign of %g is %g", x[i], s[i])
		}
	}
}

// TestSignDots checks the assembly against the portable form, to the bit, with
// the largest digits there are.
func TestSignDots(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, steps := range []int{1, 2, 3, 31, 32, 33, 72} {
		for _, groups := range []int{1, 2, 5} {
			for _, extreme := range []bool{false, true} {
				stride, columns := steps*digitWidth, groups*digitGroup
				hi, lo, sign := make([]byte, 2*stride), make([]byte, 2*stride), make([]int8, columns*stride)
				for i := range hi {
					hi[i], lo[i] = byte(rng.IntN(256)), byte(rng.IntN(256))
					if extreme {
						hi[i], lo[i] = 255, 255
					}
				}
				for i := range sign {
					sign[i] = int8(rng.IntN(3) - 1)
					if extreme {
						sign[i] = int8(1 - i/stride%2*2)
					}
				}
				want := make([]int32, 4*columns)
				for i := range want {
					want[i] = int32(i)
				}
				start := slices.Clone(want)
				signDotsPortable(want, hi, lo, sign, stride, groups)
				for name, f := range signDotsForms() {
					got := slices.Clone(start)
					f(got, hi, lo, sign, stride, groups)
					if !slices.Equal(got, want) {
						t.Fatalf("%s, %d steps, %d groups: %v, want %v", name, steps, groups, got, want)
					}
				}
			}
		}
	}
}

// TestSplit checks the assembly against the portable form, to the bit.
func TestSplit(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{64, 320} {
		g := make([]float32, n)
		for i := range g {
			g[i] = float32(rng.NormFloat64())
		}
		g[1], g[2], g[n-1], g[9] = 0, float32(math.Copysign(0, -1)), -7, math.SmallestNonzeroFloat32
		if got := absMax(g); got != 7 || absMaxPortable(g) != 7 {
			t.Errorf("the largest of %d is %g and %g, want 7", n, got, absMaxPortable(g))
		}
		inverse := float32(32767) / 7
		var hi, lo [2][]byte
		var sign [2][]int8
		var sums [2]int32
		for i, f := range []func(hi, lo []byte, sign []int8, g []float32, inverse float32) int32{split, splitPortable} {
			hi[i], lo[i], sign[i] = make([]byte, n), make([]byte, n), make([]int8, n)
			sums[i] = f(hi[i], lo[i], sign[i], g, inverse)
		}
		if !slices.Equal(hi[0], hi[1]) || !slices.Equal(lo[0], lo[1]) || !slices.Equal(sign[0], sign[1]) || sums[0] != sums[1] {
			t.Errorf("%d elements: the digits, signs or their sums %v differ", n, sums)
		}
		for i, v := range g {
			if q := float64(int(hi[1][i])<<8+int(lo[1][i])-1<<15) * 7 / 32767; !(math.Abs(q-float64(v)) <= 3.6/32767) {
				t.Errorf("%g became %g", v, q)
			}
		}
	}
}
