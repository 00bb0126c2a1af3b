package kernel

import (
	"math"
	"unsafe"
)

// Packed is a right operand in the order in which the microkernels read it, for
// weights that are used many times. One for BF16 takes two bytes an element: pairs,
// which are multiplied as such or widened to float32; one for INT8 nine bits.
type Packed struct {
	prec   Precision
	k, n   int
	kernel *gemmKernel // nil: portable, data is the k×n matrix
	data   []float32
}

// PackB packs B, which is k×n after its transposition, for GemmPacked. The
// result keeps no reference to B.
func (p *Pool) PackB(prec Precision, k, n int, b Mat) *Packed {
	w := new(Packed)
	size := w.shape(prec, k, n)
	w.data = p.shelf.take(size)
	p.Repack(w, b)
	return w
}

// shape prepares for an operand of k×n and returns the words that it takes.
func (w *Packed) shape(prec Precision, k, n int) int {
	w.prec, w.k, w.n, w.kernel = prec, k, n, gemms[prec].use
	if w.kernel == nil {
		return k * n
	}
	return w.offset(k) * w.padded()
}

// Repack replaces the packed operand by another of the same shape; it does not
// allocate.
func (p *Pool) Repack(w *Packed, b Mat) {
	checkGemm(0, w.n, w.k, nil, &b, nil, 0, &Epilogue{})
	p.pack = packJob{w, b, p}
	switch {
	case w.kernel == nil && w.prec == INT8:
		p.Run((w.k+group-1)/group, &p.pack)
	case w.kernel == nil:
		p.Run(w.k, &p.pack)
	default:
		p.Run((w.n+packColumns-1)/packColumns, &p.pack)
	}
	p.pack = packJob{}
}

// GemmPacked computes C = epilogue(A·B) for a packed B, as Gemm does, with the
// precision that B was packed for. A is m×k.
func (p *Pool) GemmPacked(m int, a Mat, w *Packed, c []float32, ldc int, ep Epilogue) {
	checkGemm(m, w.n, w.k, &a, nil, c, ldc, &ep)
	p.gemm = gemmJob{prec: w.prec, m: m, n: w.n, k: w.k, a: a, packed: w, c: c, ldc: ldc, ep: ep, pool: p}
	if w.kernel == nil {
		p.gemm.b = Mat{Data: w.data, Stride: w.n}
	}
	p.gemm.run()
	p.gemm = gemmJob{}
}

// halves tells that the operand is made of pairs of bfloat16 and its kernel's rows of A
// are not.
func (w *Packed) halves() bool { return w.prec == BF16 && w.kernel != nil && !w.kernel.pairs }

// words returns the words that k elements of a column take, filled up to whole steps.
func (w *Packed) words(k int) int {
	switch {
	case w.prec == INT8:
		return (k+group-1)/group + (k+3)/4
	case w.halves():
		return (k + 1) / 2
	}
	return w.kernel.words(k)
}

// wordsB is the same for B of the product, packed before or in the block.
func (g *gemmJob) wordsB(k int) int {
	if g.packed != nil {
		return g.packed.words(k)
	}
	return g.kernel.words(k)
}

// steps returns how many steps the microkernel takes over k.
func (g *gemmJob) steps(k int) int {
	if g.prec == INT8 {
		return k
	}
	return g.wordsB(k) / g.kernel.step
}

// padded returns the columns including those that fill up the last panel.
func (w *Packed) padded() int {
	return (w.n + w.kernel.nr - 1) / w.kernel.nr * w.kernel.nr
}

// offset returns the words a column takes up to row k0, where a block begins or
// the matrix ends.
func (w *Packed) offset(k0 int) int {
	kc := blocks(w.k, w.kernel.kc, kUnit)
	return k0/kc*w.words(kc) + w.words(k0%kc)
}

// panels returns the block of k rows at k0 from the panel of column j on.
func (w *Packed) panels(k0, k, j int) []float32 {
	return w.data[w.offset(k0)*w.padded()+j*w.words(k):]
}

// packColumns is the part that one iteration packs, a multiple of every nr.
const packColumns = 64

type packJob struct {
	w    *Packed
	b    Mat
	pool *Pool
}

func (p *packJob) Do(i, worker int) {
	w := p.w
	if w.kernel == nil {
		p.portable(i)
		return
	}
	j := i * packColumns
	n := min(packColumns, w.n-j)
	kc := blocks(w.k, w.kernel.kc, kUnit)
	for k0 := 0; k0 < w.k; k0 += kc {
		k := min(kc, w.k-k0)
		s, dst := p.pool.scratch[worker], w.panels(k0, k, j)
		if w.prec != INT8 && !w.halves() {
			s.packPanels(w.kernel, dst, p.b, w.prec, k0, k, j, n)
			continue
		}
		nr := w.kernel.nr
		whole := grow(&s.b, part(n, 1, nr)*k)
		s.packPanels(w.kernel, whole, p.b, w.prec, k0, k, j, n)
		if w.prec != INT8 {
			joinPanels(w.kernel, dst, whole, k)
			continue
		}
		for ; len(whole) > 0; whole, dst = whole[k*nr:], dst[w.words(k)*nr:] {
			to := dst
			for l := 0; l < k; l += group {
				rows := min(group, k-l)
				words := part(rows, 1, 4) / 4 * nr
				quantize(to[:nr], unsafe.Slice((*int8)(unsafe.Pointer(&to[nr])), 4*words), whole[l*nr:(l+rows)*nr])
				to = to[nr+words:]
			}
		}
	}
}

// portable packs row i of the matrix, or the i-th group of rows for INT8, whose values
// are then float32 again.
func (p *packJob) portable(i int) {
	w := p.w
	at := func(l, j int) float32 {
		if p.b.T {
			l, j = j, l
		}
		i := l*p.b.Stride + j
		switch {
		case p.b.Half != nil:
			return FromBF16(p.b.Half[i])
		case p.b.Int8 != nil:
			return p.b.Factors[l] * float32(p.b.Int8[i])
		}
		return p.b.Data[i]
	}
	if w.prec != INT8 {
		for j := range w.n {
			w.data[i*w.n+j] = round(w.prec, at(i, j))
		}
		return
	}
	var factor [1]float32
	var x [group]float32
	var q [group]int8
	for j := range w.n {
		from, to := i*group, min((i+1)*group, w.k)
		for l := from; l < to; l++ {
			x[l-from] = at(l, j)
		}
		quantize(factor[:], q[:], x[:to-from])
		for l := from; l < to; l++ {
			w.data[l*w.n+j] = factor[0] * float32(q[l-from])
		}
	}
}

// group is the number of elements of a column that have one factor in INT8.
const group = 32

// quantize writes rows as wide as factors as whole numbers: x ≈ factor·q. A column below
// the normal numbers becomes zeros.
func quantize(factors []float32, q []int8, rows []float32) {
	n := len(factors)
	clear(factors)
	for i, v := range rows {
		factors[i%n] = max(factors[i%n], v, -v)
	}
	for j, most := range factors {
		factors[j] = most / 127
		inverse := 1 / factors[j]
		if most < 0x1p-119 {
			factors[j], inverse = 0, 0
		}
		for i := j; i < len(rows); i += n {
			q[i] = int8(math.RoundToEven(float64(rows[i] * inverse)))
		}
	}
}

// joinPanels joins each two of the k rows of panels, which hold bfloat16 values, to one
// of pairs; a last row that is alone is joined with zeros.
func joinPanels(t *gemmKernel, dst, src []float32, k int) {
	for ; len(src) > 0; src = src[k*t.nr:] {
		if k > 1 {
			t.joinRows(&dst[0], &src[0], k/2)
		}
		if k%2 == 1 {
			for j, v := range src[(k-1)*t.nr : k*t.nr] {
				dst[k/2*t.nr+j] = math.Float32frombits(math.Float32bits(v) >> 16)
			}
		}
		dst = dst[(k+1)/2*t.nr:]
	}
}
