package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// eps is the relative rounding error of one float32 operation.
const eps = 1.0 / (1 << 24)

// lengths are those that the vector functions are tested at: all that meet the
// edges of the unrolled loops, and some as models have them.
func lengths() []int {
	n := []int{255, 384, 511, 768, 1537}
	for i := range 131 {
		n = append(n, i)
	}
	return n
}

// arena hands out slices between sentinel bands, at all offsets from alignment.
type arena struct {
	rng    *rand.Rand
	offset int
	bands  [][]float32
}

const band = 16

func newArena(seed uint64, offset int) *arena {
	return &arena{rng: rand.New(rand.NewPCG(seed, uint64(offset))), offset: offset}
}

// slice returns n normal numbers between guards; each slice of an arena starts
// at another offset.
func (a *arena) slice(n int) []float32 {
	at := band + (a.offset+3*len(a.bands))%8
	whole := make([]float32, at+n+band)
	for i := range whole {
		whole[i] = guard
	}
	a.bands = append(a.bands, whole[:at], whole[at+n:])
	s := whole[at : at+n : at+n]
	for i := range s {
		s[i] = float32(a.rng.NormFloat64())
	}
	return s
}

func (a *arena) check(t *testing.T) {
	t.Helper()
	for _, b := range a.bands {
		for _, v := range b {
			if math.Float32bits(v) != guardBits {
				t.Fatal("wrote outside a slice")
			}
		}
	}
}

func clone(x []float32) []float32 { return append([]float32(nil), x...) }

// sweep runs a test for each form and length; short slices at every offset from
// alignment, longer ones at one each.
func sweep(t *testing.T, under tables, test func(t *testing.T, a *arena, n int)) {
	each(t, under, func(t *testing.T) {
		for _, n := range lengths() {
			for offset := range 8 {
				if n > 20 && offset != n%8 {
					continue
				}
				a := newArena(uint64(n), offset)
				test(t, a, n)
				a.check(t)
				if t.Failed() {
					t.Fatalf("at length %d, offset %d", n, offset)
				}
			}
		}
	})
}

// near fails when got differs from want by more than bound.
func near[T float32 | float64](t *testing.T, what string, i int, got T, want, bound float64) {
	t.Helper()
	if d := math.Abs(float64(got) - want); !(d <= bound) {
		t.Errorf("%s[%d] is %v, want %v: off by %.3g, more than %.3g", what, i, got, want, d, bound)
	}
}

func TestDot(t *testing.T) {
	sweep(t, tables{&dot}, func(t *testing.T, a *arena, n int) {
		x, y := a.slice(n), a.slice(n)
		var want, size float64
		for i := range x {
			want += float64(x[i]) * float64(y[i])
			size += math.Abs(float64(x[i]) * float64(y[i]))
		}
		near(t, "Dot", 0, Dot(x, y), want, float64(n)*eps*size)
	})
}

func TestSumSquares(t *testing.T) {
	sweep(t, tables{&sumSquares, &sumSquaresColumns}, func(t *testing.T, a *arena, n int) {
		x, weights := a.slice(n), a.slice(n)
		var plain, weighted, size float64
		for i, v := range x {
			plain += float64(v) * float64(v)
			weighted += float64(weights[i]) * float64(v) * float64(v)
			size += math.Abs(float64(weights[i])) * float64(v) * float64(v)
		}
		bound := float64(n+2) * 0x1p-53
		near(t, "SumSquares", 0, SumSquares(x), plain, bound*plain)
		near(t, "SumSquaresColumns", 0, SumSquaresColumns(x, weights), weighted, bound*size)
	})
}

func TestElementwise(t *testing.T) {
	sweep(t, tables{&addTo, &mul, &scale, &axpy}, func(t *testing.T, a *arena, n int) {
		x, y := a.slice(n), a.slice(n)
		// on returns what an operation makes of y.
		on := func(run func(dst []float32)) []float32 {
			dst := a.slice(n)
			copy(dst, y)
			run(dst)
			return dst
		}
		to := a.slice(n)
		AddTo(to, x, y)
		sum := on(func(dst []float32) { Add(dst, x) })
		product := on(func(dst []float32) { Mul(dst, x) })
		scaled := on(func(dst []float32) { Scale(dst, 0.7) })
		axpy := on(func(dst []float32) { Axpy(-1.3, x, dst) })
		for i := range x {
			near(t, "AddTo", i, to[i], float64(x[i]+y[i]), 0)
			near(t, "Add", i, sum[i], float64(x[i]+y[i]), 0)
			near(t, "Mul", i, product[i], float64(x[i]*y[i]), 0)
			near(t, "Scale", i, scaled[i], float64(y[i]*0.7), 0)
			p := float64(float32(-1.3)) * float64(x[i])
			near(t, "Axpy", i, axpy[i], p+float64(y[i]), eps*(2*math.Abs(p)+math.Abs(float64(y[i]))))
		}
	})
}

// TestAddColumns wants the same bytes from every level, since rows are added in
// order.
func TestAddColumns(t *testing.T) {
	each(t, tables{&addRows4}, func(t *testing.T) {
		for _, n := range []int{0, 1, 2, 7, 8, 9, 16, 31, 100} {
			for rows := range 10 {
				stride := n + rows%3
				a := newArena(uint64(n), rows)
				dst, x := a.slice(n), a.slice(max(0, (rows-1)*stride+n))
				want := clone(dst)
				for r := range rows {
					for j := range want {
						want[j] += x[r*stride+j]
					}
				}
				AddColumns(dst, x, stride, rows)
				a.check(t)
				for j := range want {
					near(t, fmt.Sprintf("%d rows of", rows), j, dst[j], float64(want[j]), 0)
				}
			}
		}
	})
}

// TestSoftmax: of two rows. Each probability carries the errors of the exponent's argument
// (rounded maximum), of exp and of the sum, relative to itself.
func TestSoftmax(t *testing.T) {
	sweep(t, tables{&softmax}, func(t *testing.T, a *arena, n int) {
		x := a.slice(2 * n)
		for i := range x {
			if i%7 == 3 {
				x[i] *= 85 // some probabilities underflow
			}
			if i%11 == 10 {
				x[i] = float32(math.Inf(-1))
			}
		}
		in := clone(x)
		Softmax(x, n)
		for ; len(in) > 0; in, x = in[n:], x[n:] {
			want, total, top := make([]float64, n), 0.0, math.Inf(-1)
			for _, v := range in[:n] {
				top = max(top, float64(v))
			}
			for i, v := range in[:n] {
				want[i] = math.Exp(float64(v) - top)
				total += want[i]
			}
			for i := range want {
				p := want[i] / total
				argument := math.Abs(top) + 104
				near(t, "Softmax", i, x[i], p, p*eps*(2*argument+float64(n)+8)+0x1p-126)
			}
		}
	})
}

// TestSoftmaxParts: MaxScaled and ExpSum, of which a vocabulary's softmax is made.
func TestSoftmaxParts(t *testing.T) {
	sweep(t, tables{&maxScaled, &expSum}, func(t *testing.T, a *arena, n int) {
		for _, factor := range []float32{0.3, -2} {
			x := a.slice(n)
			top := float32(math.Inf(-1))
			for _, v := range x {
				top = max(top, v*factor)
			}
			if got := MaxScaled(x, factor); got != top {
				t.Errorf("MaxScaled is %v, want %v", got, top)
			}
			if n == 0 {
				top = 0
			}
			in := clone(x)
			got, want := ExpSum(x, factor, top), 0.0
			for i, v := range in {
				v := float64(factor)*float64(v) - float64(top)
				want += math.Exp(v)
				near(t, "ExpSum's element", i, x[i], math.Exp(v), eps*math.Exp(v)*(2*math.Abs(v)+2*math.Abs(float64(top))+3))
			}
			near(t, "ExpSum", n, got, want, eps*want*(float64(n)+20))
		}
	})
}

func TestSoftmaxSpecial(t *testing.T) {
	inf := float32(math.Inf(1))
	each(t, tables{&softmax}, func(t *testing.T) {
		for _, x := range [][]float32{{-inf, -inf}, {1, float32(math.NaN()), 2}, {1, inf}} {
			y := clone(x)
			Softmax(y, len(y))
			for i, p := range y {
				if p == p && !(x[0] == 1 && x[1] == inf && i == 0) {
					t.Errorf("Softmax(%v) = %v, want NaN", x, y)
				}
			}
		}
		if x := []float32{3e38, -3e38, 3e38}; true {
			Softmax(x, len(x))
			if x[0] != 0.5 || x[1] != 0 || x[2] != 0.5 {
				t.Errorf("Softmax of large numbers is %v", x)
			}
		}
	})
}

func TestSoftmaxGrad(t *testing.T) {
	sweep(t, tables{&softmaxGrad}, func(t *testing.T, a *arena, n int) {
		dp, p := a.slice(n), a.slice(n)
		for i := range p {
			p[i] = float32(math.Abs(float64(p[i])) / float64(n))
		}
		const scale = 0.125
		var dot, size float64
		for i := range p {
			dot += float64(dp[i]) * float64(p[i])
			size += math.Abs(float64(dp[i]) * float64(p[i]))
		}
		in := clone(dp)
		SoftmaxGrad(dp, p, scale)
		for i := range p {
			q := scale * float64(p[i])
			near(t, "SoftmaxGrad", i, dp[i], q*(float64(in[i])-dot),
				q*eps*(float64(n)*size+4*(math.Abs(float64(in[i]))+math.Abs(dot))))
		}
	})
}

func TestLayerNorm(t *testing.T) {
	sweep(t, tables{&layerNorm}, func(t *testing.T, a *arena, n int) {
		if n == 0 {
			return
		}
		x, y, norm, gain, bias := a.slice(n), a.slice(n), a.slice(n), a.slice(n), a.slice(n)
		const epsilon = 1e-5
		var mean, variance, size float64
		for i := range x {
			x[i] += 3
			mean += float64(x[i]) / float64(n)
			size = max(size, math.Abs(float64(x[i])))
		}
		for _, v := range x {
			variance += (float64(v) - mean) * (float64(v) - mean) / float64(n)
		}
		want := 1 / math.Sqrt(variance+epsilon)
		// The mean is known to about half its n roundings; that error, in units of
		// the deviation, enters every output.
		bound := eps * (float64(n)/2 + 8) * (1 + size*want)
		rstd := LayerNorm(y, norm, x, gain, bias, epsilon)
		near(t, "rstd", n, rstd, want, want*bound)
		for i := range x {
			h := (float64(x[i]) - mean) * want
			near(t, "norm", i, norm[i], h, bound*(1+math.Abs(h)))
			near(t, "y", i, y[i], h*float64(gain[i])+float64(bias[i]),
				bound*(1+math.Abs(h))*math.Abs(float64(gain[i]))+2*eps*math.Abs(float64(bias[i])))
		}
		kept := clone(y)
		LayerNorm(x, nil, x, gain, bias, epsilon)
		for i := range x {
			near(t, "in place, without norm", i, x[i], float64(kept[i]), 0)
		}
	})
}

func TestLayerNormGrad(t *testing.T) {
	sweep(t, tables{&layerNormGrad}, func(t *testing.T, a *arena, n int) {
		if n == 0 {
			return
		}
		dx, dgain, dbias := a.slice(n), a.slice(n), a.slice(n)
		dy, norm, gain := a.slice(n), a.slice(n), a.slice(n)
		const rstd = 1.3
		var s, q, size float64
		for i := range dy {
			d := float64(dy[i]) * float64(gain[i])
			s += d / float64(n)
			q += d * float64(norm[i]) / float64(n)
			size += (math.Abs(d) + math.Abs(d*float64(norm[i]))) / float64(n)
		}
		oldGain, oldBias := clone(dgain), clone(dbias)
		LayerNormGrad(dx, dgain, dbias, dy, norm, gain, rstd)
		for i := range dy {
			h, g := float64(norm[i]), float64(dy[i])
			d := g * float64(gain[i])
			near(t, "dgain", i, dgain[i], float64(oldGain[i])+g*h, 2*eps*(math.Abs(float64(oldGain[i]))+2*math.Abs(g*h)))
			near(t, "dbias", i, dbias[i], float64(oldBias[i]+dy[i]), 0)
			near(t, "dx", i, dx[i], rstd*(d-s-h*q),
				rstd*eps*(float64(n)*size*(1+math.Abs(h))+4*(math.Abs(d)+math.Abs(s)+math.Abs(h*q))))
		}
		kept := clone(dx)
		LayerNormGrad(dy, dgain, dbias, dy, norm, gain, rstd)
		for i := range dy {
			near(t, "dx in place of dy", i, dy[i], float64(kept[i]), 0)
		}
	})
}

func TestRMSNorm(t *testing.T) {
	sweep(t, tables{&rmsNorm, &sumSquares}, func(t *testing.T, a *arena, n int) {
		if n == 0 {
			return
		}
		x, y, gain := a.slice(n), a.slice(n), a.slice(n)
		const epsilon = 1e-5
		var mean float64
		for _, v := range x {
			mean += float64(v) * float64(v) / float64(n)
		}
		want := 1 / math.Sqrt(mean+epsilon)
		rstd := RMSNorm(y, x, gain, epsilon)
		near(t, "rstd", n, rstd, want, want*2*eps)
		for i := range x {
			h := float64(x[i]) * want * float64(gain[i])
			near(t, "y", i, y[i], h, 4*eps*math.Abs(h))
		}
		RMSNorm(x, x, gain, epsilon)
		for i := range x {
			near(t, "in place", i, x[i], float64(y[i]), 0)
		}
	})
}

func TestRMSNormGrad(t *testing.T) {
	sweep(t, tables{&rmsNormGrad}, func(t *testing.T, a *arena, n int) {
		if n == 0 {
			return
		}
		dx, dgain, dy, x, gain := a.slice(n), a.slice(n), a.slice(n), a.slice(n), a.slice(n)
		const rstd = 1.3
		var mean, size float64
		for i := range dy {
			d := float64(dy[i]) * float64(gain[i]) * float64(x[i])
			mean += d / float64(n)
			size += math.Abs(d) / float64(n)
		}
		old := clone(dgain)
		RMSNormGrad(dx, dgain, dy, x, gain, rstd)
		for i := range dy {
			h, g := float64(x[i])*rstd, float64(dy[i])
			d := g * float64(gain[i])
			near(t, "dgain", i, dgain[i], float64(old[i])+g*h, 2*eps*(math.Abs(float64(old[i]))+3*math.Abs(g*h)))
			near(t, "dx", i, dx[i], rstd*(d-h*rstd*mean),
				rstd*eps*(float64(n+8)*rstd*size*math.Abs(h)+4*(math.Abs(d)+math.Abs(h*rstd*mean))))
		}
		RMSNormGrad(dy, dgain, dy, x, gain, rstd)
		for i := range dy {
			near(t, "dx in place of dy", i, dy[i], float64(dx[i]), 0)
		}
	})
}

// TestAdamW: three steps against the definition in float64; each quantity has a
// handful of roundings a step.
func TestAdamW(t *testing.T) {
	sweep(t, tables{&adamStep, &adamStepColumns}, func(t *testing.T, a *arena, n int) {
		w, m, v, rates := a.slice(n), a.slice(n), a.slice(n), a.slice(n)
		w64, m64, v64 := make([]float64, n), make([]float64, n), make([]float64, n)
		for i := range v {
			m[i], v[i] = 0, 0
			w64[i] = float64(w[i])
		}
		for step := 1; step <= 3; step++ {
			o := AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, Decay: 0.1, GradScale: 0.8,
				Correction1: float32(1 - math.Pow(0.9, float64(step))), Correction2: float32(1 - math.Pow(0.98, float64(step)))}
			grad := a.slice(n)
			rate := func(i int) float64 { return float64(rates[i]) }
			if step%2 == 0 {
				o.StepColumns(w, grad, m, v, rates)
			} else {
				o.Step(w, grad, m, v, 0.75)
				rate = func(int) float64 { return 0.75 }
			}
			for i := range w {
				g := float64(o.GradScale) * float64(grad[i])
				b1, b2 := float64(o.Beta1), float64(o.Beta2)
				m64[i] = b1*m64[i] + float64(1-o.Beta1)*g
				v64[i] = b2*v64[i] + float64(1-o.Beta2)*g*g
				move := rate(i) * float64(o.LR) / float64(o.Correction1) * m64[i] /
					(math.Sqrt(v64[i]/float64(o.Correction2)) + float64(o.Eps))
				w64[i] = w64[i]*(1-float64(o.LR)*float64(o.Decay)) - move
			}
		}
		for i := range w {
			near(t, "m", i, m[i], m64[i], 20*eps) // gradients are of order 1
			near(t, "v", i, v[i], v64[i], 20*eps*v64[i])
			near(t, "w", i, w[i], w64[i], 8*eps*(math.Abs(w64[i])+0.5))
		}
	})
}

// TestVectorAllocs: no function allocates.
func TestVectorAllocs(t *testing.T) {
	x, y, z, u, v, w := make([]float32, 70), make([]float32, 70), make([]float32, 70), make([]float32, 70), make([]float32, 70), make([]float32, 70)
	o := AdamW{LR: 1, Correction1: 1, Correction2: 1, Eps: 1}
	n := testing.AllocsPerRun(10, func() {
		Dot(x, y)
		Axpy(1, x, y)
		Mul(x, y)
		Add(x, y)
		SumSquares(x)
		SumSquaresColumns(x, y)
		AddColumns(x[:7], y, 9, 7)
		Softmax(x, len(x))
		SoftmaxGrad(x, y, 1)
		LayerNorm(x, y, z, u, v, 1)
		LayerNormGrad(x, y, z, u, v, w, 1)
		RMSNorm(x, y, z, 1)
		RMSNormGrad(x, y, z, u, v, 1)
		o.Step(x, y, z, u, 1)
		o.StepColumns(x, y, z, u, v)
		for act := Identity; act <= Tanh; act++ {
			Activate(act, x, y, z)
			Gated(act, x, y, z)
			GatedGrad(act, x, y, z, u, v)
		}
		DropoutApply(x, y, 1, 2, 0.1)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
