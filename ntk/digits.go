package ntk

import (
	"math"

	"mlpfusion/kernel"
)

// digits is a panel in whole numbers. A gradient g of example i is q − 2¹⁵ in
// units of unit_i, with q in 0 … 2¹⁶−1 as two bytes, and its sign a byte of its
// own; so ⟨g_i, sign(g_j)⟩ is a sum of small products, exact in 32 bits, at twice
// the speed of float32. The rounding of q, at most 2⁻¹⁶ of the largest gradient
// of the example in the panel, is all that it costs; signs are those of g.
type digits struct {
	stride  int // bytes of a row: the panel's parameters, and zeros to a multiple of 64
	hi, lo  []byte
	sign    []int8
	unit    []float32 // by example
	signSum []int32   // Σ sign, by example
}

const (
	digitWidth = 64 // bytes of the largest vector
	digitGroup = 4  // rows of signs that signDots takes together
)

// newDigits returns memory for n examples and panels of up to width parameters.
// n is rounded up to a whole group; the rows behind the last count for nothing.
func newDigits(n, width int) *digits {
	n = (n + digitGroup - 1) / digitGroup * digitGroup
	stride := (width + digitWidth - 1) / digitWidth * digitWidth
	return &digits{hi: make([]byte, n*stride), lo: make([]byte, n*stride), sign: make([]int8, n*stride),
		unit: make([]float32, n), signSum: make([]int32, n)}
}

// set writes the gradients g of example i. g has room for a multiple of 64, and
// set clears what is behind its end.
func (d *digits) set(i int, g []float32) {
	n := len(g)
	g = g[:d.stride]
	clear(g[n:])
	most := absMax(g)
	d.unit[i] = most / (1<<15 - 1)
	inverse := (1<<15 - 1) / most
	if inverse > math.MaxFloat32 { // nothing above 10⁻³⁴
		inverse = 0
	}
	row := i * d.stride
	d.signSum[i] = split(d.hi[row:], d.lo[row:], d.sign[row:], g, inverse)
}

// absMaxPortable returns the largest |g_k|.
func absMaxPortable(g []float32) float32 {
	var most float32
	for _, v := range g {
		most = max(most, v, -v)
	}
	return most
}

// splitPortable writes the digits and the sign of each element of g in units of
// 1/inverse, rounded to even, and returns the sum of the signs.
func splitPortable(hi, lo []byte, sign []int8, g []float32, inverse float32) int32 {
	var sum int32
	for k, v := range g {
		q := int32(math.RoundToEven(float64(v*inverse))) + 1<<15
		hi[k], lo[k], sign[k] = byte(q>>8), byte(q), 0
		switch {
		case v > 0:
			sign[k] = 1
		case v < 0:
			sign[k] = -1
		}
		sum += int32(sign[k])
	}
	return sum
}

// digitRows and digitColumns are the examples of a block of the product: the
// columns' signs stay in the second-level cache while the rows pass.
const digitRows, digitColumns = 16, 48

// signProduct adds ⟨g_i, sign(g_j)⟩ to the n×n matrix k.
type signProduct struct {
	*digits
	n   int
	k   []float32
	out [][]int32 // by worker
}

func (p *signProduct) add(pool *kernel.Pool) {
	pool.Run((p.n+digitRows-1)/digitRows, p)
}

// Do computes one block of rows.
func (p *signProduct) Do(block, w int) {
	for j := 0; j < p.n; j += digitColumns {
		groups := (min(digitColumns, p.n-j) + digitGroup - 1) / digitGroup
		for i := block * digitRows; i < min(p.n, (block+1)*digitRows); i += 2 {
			out := p.out[w][:4*digitGroup*groups]
			clear(out)
			a := i * p.stride
			signDots(out, p.hi[a:], p.lo[a:], p.sign[j*p.stride:], p.stride, groups)
			p.store(i, j, out)
		}
	}
}

// store adds what signDots found for rows i and i+1 and the columns from j.
func (p *signProduct) store(i, j int, out []int32) {
	for r := range min(2, p.n-i) {
		row := p.k[(i+r)*p.n+j : (i+r)*p.n+min(j+len(out)/4, p.n)]
		unit, sums := p.unit[i+r], p.signSum[j:j+len(row)]
		add := func(c int, hi, lo int32) { // each g is 2¹⁵ less than its digits say
			row[c] += unit * float32(hi<<8+lo-sums[c]<<15)
		}
		for c := 0; c < len(row); c += 2 {
			o := (*[4]int32)(out[4*c+4*r:])
			add(c, o[0], o[1])
			if c+1 < len(row) {
				add(c+1, o[2], o[3])
			}
		}
	}
}

// signDotsPortable adds to out, for two rows of digits and groups·4 rows of signs,
// all stride bytes long, the sums of digit × sign. Out has for each pair of sign
// rows: row 0 with the first (high digits, low digits) and with the second, then
// row 1 likewise.
func signDotsPortable(out []int32, hi, lo []byte, sign []int8, stride, groups int) {
	for j := range groups * digitGroup / 2 {
		for r := range 2 {
			for c := range 2 {
				var h, l int32
				for k := range stride {
					s := int32(sign[(2*j+c)*stride+k])
					h += s * int32(hi[r*stride+k])
					l += s * int32(lo[r*stride+k])
				}
				out[8*j+4*r+2*c] += h
				out[8*j+4*r+2*c+1] += l
			}
		}
	}
}
