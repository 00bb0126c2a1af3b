package kernel

import (
	"math"
	"testing"
	"unsafe"
)

// simulated returns a kernel whose microkernels are these lines of Go, so that
// the packing and blocking of every kernel are tested on every machine. (The
// microkernels themselves: see kernel/_generate/gemm.)
func simulated(t *gemmKernel) *gemmKernel {
	sim := *t
	sim.kc, sim.mc = t.kc/8, 2*t.mr // more blocks in small products
	sim.tile = make([]func(*tileArgs), len(t.tile))
	for rows := range sim.tile {
		sim.tile[rows] = func(a *tileArgs) { simulateTile(t, rows, a) }
	}
	return &sim
}

func simulateTile(t *gemmKernel, rows int, a *tileArgs) {
	at := func(p unsafe.Pointer, off int) *float32 { return (*float32)(unsafe.Add(p, off)) }
	pair := func(x float32) (lo, hi float32) {
		b := math.Float32bits(x)
		return math.Float32frombits(b << 16), math.Float32frombits(b &^ 0xffff)
	}
	for tile := range a.tiles {
		for i := range rows {
			for j := range a.n {
				var sum float32
				for l := range a.k * t.step {
					x := *at(a.a, tile*a.aTile+i*a.aRow+l*a.aK)
					y := *at(a.b, l*a.bK+4*j)
					if t.pairs {
						x0, x1 := pair(x)
						y0, y1 := pair(y)
						sum += x0*y0 + x1*y1
					} else {
						sum += x * y
					}
				}
				c := at(a.c, (tile*rows+i)*a.cRow+4*j)
				if a.accum != 0 {
					*c += a.alpha * sum
				} else {
					*c = a.alpha * sum
				}
			}
		}
	}
}

// TestGemmSimulated runs the tests of the product with the kernels of every
// level, simulated; what they pack, they pack with AVX2.
func TestGemmSimulated(t *testing.T) {
	if detected < AVX2 {
		t.Skip("this machine or build has no avx2, which packs")
	}
	defer func(level ISA) { isa = level }(isa)
	isa = AVX2
	saved := gemmFor
	defer func() { gemmFor = saved }()
	for level := AVX2; level <= AMX; level++ {
		for prec := range gemmFor {
			gemmFor[prec][AVX2] = simulated(saved[prec][level])
		}
		t.Run(level.String(), func(t *testing.T) {
			testGemmEdges(t, 5)
			testGemmLarge(t, 4)
		})
	}
}
