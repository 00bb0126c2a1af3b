package kernel

import (
	"math"
	"math/bits"
	"testing"
)

// TestDropoutBits: every level, in whatever pieces, drops what the definition
// says, with the same bytes; also where the position passes 2^32.
func TestDropoutBits(t *testing.T) {
	sweep(t, tables{&dropApply}, func(t *testing.T, a *arena, n int) {
		const seed, p = 7, 0.3
		offset := uint64(1<<32 - 50 + a.offset)
		src, dst, pieces := a.slice(n), a.slice(n), a.slice(n)
		DropoutApply(dst, src, seed, offset, p)
		cut := n / 3
		DropoutApply(pieces[:cut], src[:cut], seed, offset, p)
		DropoutApply(pieces[cut:], src[cut:], seed, offset+uint64(cut), p)
		for i, v := range src {
			k := newDropKeys(seed, offset+uint64(i), p)
			want := k.drop(v, uint32(offset)+uint32(i))
			if math.Float32bits(dst[i]) != math.Float32bits(want) || math.Float32bits(pieces[i]) != math.Float32bits(want) {
				t.Errorf("[%d]: dropped %v to %v, in two pieces to %v; want %v", i, v, dst[i], pieces[i], want)
			}
		}
		DropoutApply(src, src, seed, offset, p)
		for i := range src {
			near(t, "in place", i, src[i], float64(dst[i]), 0)
		}
	})
}

func TestDropoutSpecial(t *testing.T) {
	inf := float32(math.Inf(1))
	each(t, tables{&dropApply}, func(t *testing.T) {
		src := make([]float32, 1000)
		for i := range src {
			src[i] = [...]float32{inf, -inf, float32(math.NaN())}[i%3]
		}
		dst := make([]float32, len(src))
		DropoutApply(dst, src, 1, 0, 0)
		for i, v := range dst {
			if v != src[i] && v == v {
				t.Fatalf("p = 0 changed %v to %v", src[i], v)
			}
		}
		DropoutApply(dst, src, 1, 0, 0.5)
		zeros := 0
		for _, v := range dst {
			if math.Float32bits(v) == 0 {
				zeros++
			}
		}
		if zeros < 400 || zeros > 600 {
			t.Errorf("dropped %d of 1000 infinities and NaNs to +0", zeros)
		}
	})
}

// hashes returns the hashes of n positions from an offset on.
func hashes(seed, offset uint64, n int) []uint32 {
	h := make([]uint32, n)
	k := newDropKeys(seed, offset, 0)
	for i := range h {
		h[i] = k.hash(uint32(offset) + uint32(i))
	}
	return h
}

// sigmas fails when a statistic is 5 or more standard deviations off: one false
// alarm in 1.7 million, and the seeds are fixed.
func sigmas(t *testing.T, what string, got, want, deviation float64) {
	t.Helper()
	if z := (got - want) / deviation; !(math.Abs(z) < 5) {
		t.Errorf("%s is %v, %.1f standard deviations from %v", what, got, z, want)
	}
}

// TestDropoutRate: the share of dropped elements, and E[dropout(1)] = 1.
func TestDropoutRate(t *testing.T) {
	const n = 1 << 20
	ones, dst := make([]float32, n), make([]float32, n)
	for i := range ones {
		ones[i] = 1
	}
	for i, p := range []float32{0, 0.001, 0.1, 0.25, 0.5, 0.9} {
		DropoutApply(dst, ones, uint64(i), uint64(i)<<31, p)
		kept, sum := 0.0, 0.0
		for _, v := range dst {
			if v != 0 {
				kept++
			}
			sum += float64(v)
		}
		q := 1 - float64(p)
		sigmas(t, "kept share", kept/n, q, math.Sqrt(q*(1-q)/n)+1e-12)
		sigmas(t, "mean", sum/n, 1, math.Sqrt((1-q)/q/n)+1e-7)
	}
}

// TestDropoutRandomness checks the hash itself, over consecutive positions and
// over consecutive seeds.
func TestDropoutRandomness(t *testing.T) {
	const n = 1 << 18
	streams := map[string][]uint32{
		"positions from 0":           hashes(1, 0, n),
		"positions from 3·2^32−2^17": append(hashes(9, 3<<32-1<<17, n/2), hashes(9, 3<<32, n/2)...),
	}
	seeds := make([]uint32, n)
	strided := make([]uint32, n)
	for i := range n {
		seeds[i] = hashes(uint64(i), 12345, 1)[0]
		strided[i] = hashes(1, uint64(i)*768, 1)[0]
	}
	streams["seeds"], streams["positions 768 apart"] = seeds, strided
	for name, h := range streams {
		t.Run(name, func(t *testing.T) {
			var mean, square float64
			var counts [4][256]float64
			var set [32]float64
			for _, v := range h {
				u := (float64(v) + 0.5) / (1 << 32)
				mean += u / n
				square += (u - 0.5) * (u - 0.5) / n
				for b := range 4 {
					counts[b][byte(v>>(8*b))]++
				}
				for b := range set {
					set[b] += float64(v >> b & 1)
				}
			}
			sigmas(t, "mean", mean, 0.5, math.Sqrt(1.0/12/n))
			sigmas(t, "variance", square, 1.0/12, math.Sqrt((1.0/80-1.0/144)/n))
			for b := range set {
				sigmas(t, "share of a bit", set[b]/n, 0.5, 0.5/math.Sqrt(n))
			}
			for b := range counts {
				chi := 0.0
				for _, c := range counts[b] {
					chi += (c - n/256) * (c - n/256) / (n / 256)
				}
				sigmas(t, "chi-square of a byte", chi, 255, math.Sqrt(2*255))
			}
			for _, lag := range []int{1, 2, 3, 4, 7, 8, 16, 64, 384, 768} {
				cov, flips := 0.0, 0
				for i := range n - lag {
					cov += (float64(h[i])/(1<<32) - 0.5) * (float64(h[i+lag])/(1<<32) - 0.5)
					flips += bits.OnesCount32(h[i] ^ h[i+lag])
				}
				m := float64(n - lag)
				sigmas(t, "lag correlation", cov/m*12, 0, 1/math.Sqrt(m))
				sigmas(t, "bits changed", float64(flips)/m, 16, math.Sqrt(8/m))
			}
		})
	}
}

// TestDropoutStreams: two seeds' streams agree no more often than chance, and so
// do a position's low and next high half.
func TestDropoutStreams(t *testing.T) {
	const n = 1 << 16
	base := hashes(5, 0, n)
	for i, other := range [][]uint32{hashes(6, 0, n), hashes(5+1<<32, 0, n), hashes(5, 1<<32, n), hashes(5, 1<<40, n)} {
		same := 0.0
		for j := range base {
			if (base[j] < 1<<31) == (other[j] < 1<<31) {
				same++
			}
		}
		sigmas(t, "share of equal bits with stream "+string(rune('0'+i)), same/n, 0.5, 0.5/math.Sqrt(n))
	}
}
