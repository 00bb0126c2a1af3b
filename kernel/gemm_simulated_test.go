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
	if t.pairs {                    // packed by instructions that AVX2 does not have
		sim.pairPanels, sim.pairColumns = simulatePairPanels, simulatePairColumns
		sim.pairRow, sim.pairRows = simulatePairRow, simulatePairRows
	}
	sim.tile = make([]func(*tileArgs), len(t.tile))
	for rows := range sim.tile {
		sim.tile[rows] = func(a *tileArgs) { simulateTile(t, rows, a) }
	}
	return &sim
}

// joined returns a word of two bfloat16.
func joined(lo, hi float32) float32 {
	return math.Float32frombits(uint32(ToBF16(hi))<<16 | uint32(ToBF16(lo)))
}

func simulatePairRow(dst, src *float32, n int) {
	x, y := unsafe.Slice(src, n), unsafe.Slice(dst, (n+1)/2)
	for i := range y {
		hi := float32(0)
		if 2*i+1 < n {
			hi = x[2*i+1]
		}
		y[i] = joined(x[2*i], hi)
	}
}

func simulatePairRows(dst *float32, stride int, src *float32, srcStride, k, m int) {
	stride, srcStride = stride/4, srcStride/4
	words := (k + 31) / 32 * 16
	x, y := unsafe.Slice(src, (k-1)*srcStride+m), unsafe.Slice(dst, (m-1)*stride+words)
	at := func(l, i int) float32 {
		if l >= k {
			return 0
		}
		return x[l*srcStride+i]
	}
	for i := range m {
		for w := range words {
			y[i*stride+w] = joined(at(2*w, i), at(2*w+1, i))
		}
	}
}

func simulatePairColumns(dst *float32, rows *[16]*float32, k int) {
	y := unsafe.Slice(dst, ((k+1)/2-1)*32+16)
	row := make([]float32, (k+1)/2)
	for r, src := range rows {
		simulatePairRow(&row[0], src, k)
		for l, w := range row {
			y[l*32+r] = w
		}
	}
}

func simulatePairTile(dst, src *float32, stride, k, n int) {
	stride /= 4
	x, y := unsafe.Slice(src, (k-1)*stride+n), unsafe.Slice(dst, (k+1)/2*n)
	for l := 0; l < k; l += 2 {
		for j := range n {
			hi := float32(0)
			if l+1 < k {
				hi = x[(l+1)*stride+j]
			}
			y[l/2*n+j] = joined(x[l*stride+j], hi)
		}
	}
}

func simulatePairPanels(dst, src *float32, stride, panel, k, n int) {
	var tile [32 * 1024]float32
	for j := 0; j < n; j += 32 {
		w := min(32, n-j)
		simulatePairTile(&tile[0], (*float32)(unsafe.Add(unsafe.Pointer(src), 4*j)), stride, k, w)
		y := unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(dst), j/32*panel)), (k+1)/2*32)
		clear(y)
		for l := range (k + 1) / 2 {
			copy(y[l*32:], tile[l*w:(l+1)*w])
		}
	}
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
					x := *at(a.a, tile*a.aTile+i*a.aRow+4*l)
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
// level, simulated.
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
