package kernel

import "unsafe"

// gemmKernel is one implementation of the product's inner parts. C is computed
// in tiles of up to mr×nr elements whose sums stay in registers; k goes in
// blocks of up to kc, rows in blocks of up to mc (a multiple of mr), columns in
// blocks of up to nc.
//
// B is packed into panels of nr columns, [k][nr], so that a panel's block stays
// in the first- or second-level cache while the rows pass. A is read by rows:
// where it lies, or else from a copy (see copiesA).
//
// With pairs, an element of a packed operand is a word of two bfloat16, of k and
// k+1, and A is copied as such words too.
type gemmKernel struct {
	mr, nr      int
	kc, mc, nc  int
	few         int // rows that B's panels are made for one by one; see block
	pairs       bool
	step        int               // words of k that a microkernel takes at once
	tile        []func(*tileArgs) // by rows
	halves      []func(*tileArgs) // the same for a B of pairs of bfloat16 and an A of float32; see Packed
	bytes       []func(*tileArgs) // the same for a B of int8 with factors
	transpose   func(dst *float32, stride int, rows *[16]*float32, k int, mask *int32)
	copyPanels  func(dst, src *float32, stride, panel, panels, k int, mask *int32)
	joinRows    func(dst, src *float32, pairs int)
	round       func(x *float32, n int)
	pairPanels  func(dst, src *float32, stride, panel, k, n int)
	pairRow     func(dst, src *float32, n int)
	pairRows    func(dst *float32, stride int, src *float32, srcStride, k, m int)
	pairColumns func(dst *float32, rows *[16]*float32, k int)
	epilogue    func(c, bias, add, scale, mul *float32, n int, mask *int32)
}

// words returns the words that k elements take, filled up to whole steps.
func (t *gemmKernel) words(k int) int {
	if t.pairs {
		k = (k + 1) / 2
	}
	return (k + t.step - 1) / t.step * t.step
}

// kUnit is what a block of k, save the last, is a multiple of: whole steps of pairs, and
// what has one factor in int8.
const kUnit = 32

// row returns the words from a row of k elements to the next in a copy of A.
func (t *gemmKernel) row(k int) int {
	row := part(t.words(k), 1, 16)
	if crowded(row) {
		row += 16
	}
	return row
}

// crowded reports whether rows of this stride fall on each other in the
// first-level cache, so that it pays to copy them.
func crowded(stride int) bool { return stride*4%4096 == 0 }

// gemms holds the implementations for each precision; nil is the portable one.
var gemms = [INT8 + 1]function[*gemmKernel]{portable[*gemmKernel](nil), portable[*gemmKernel](nil), portable[*gemmKernel](nil)}

// tileArgs is what a microkernel reads; the assembly knows its layout. It
// computes tiles of its number of rows, one below the other.
type tileArgs struct {
	a, b, c unsafe.Pointer
	k       int // steps
	aRow    int // A's stride in bytes
	bK      int // B's
	cRow    int // C's
	aTile   int // from one tile of A to the next, bytes
	tiles   int
	n       int // columns to store
	alpha   float32
	accum   uint32 // C += instead of C =
	mask    *int32 // maskFor(nr, n)
	rows    int    // of a tile; the following are AMX's
	config  *[64]byte
	temp    *[32 * 32]float32
	stream  int   // 1: C's tiles are whole and go past the caches; this and the following are AVX-512's
	fetch   int   // steps of k before the end where C is asked for; 0: never
	next    ahead // asked for on the way
}

// ahead is memory that will be wanted: places of 128 bytes, those of a column of
// rows and then those of the next.
type ahead struct {
	at     uintptr
	row    int // from one place to the next, bytes
	rows   int // places in a column
	left   int // of them in this one
	back   int // from behind a column to the next, bytes
	places int // in all
}

// tileConfig is AMX's: palette 1, eight tiles of 16 rows of 64 bytes.
var tileConfig = func() (c [64]byte) {
	c[0] = 1
	for i := range 8 {
		c[16+2*i], c[48+i] = 64, 16
	}
	return c
}()

// masks is a window of ones and zeros; see maskFor.
var masks = func() (m [64]int32) {
	for i := range 32 {
		m[i] = -1
	}
	return m
}()

// maskFor returns words of which the first n are ones and the following zeros,
// 32−n of them.
func maskFor(n int) *int32 { return &masks[32-n] }

// blocks splits n into the fewest equal parts of at most size, rounded up to a
// multiple of unit (as size is), and returns the size of one.
func blocks(n, size, unit int) int { return part(n, max(1, (n+size-1)/size), unit) }

// block computes rows i0 ≤ i < i1 and columns j0 ≤ j < j1 of the product; j0 is
// a multiple of nr. Every element is the same sum in the same order whatever
// the block: k in steps of one, in blocks that depend on k alone.
// While the microkernel runs it asks for what will be packed of B next (see later).
func (s *Scratch) block(t *gemmKernel, g *gemmJob, i0, i1, j0, j1 int, more bool) {
	args := &s.args
	kc := blocks(g.k, t.kc, kUnit)
	args.alpha = g.ep.alpha()
	args.cRow = g.ldc * 4
	args.config, args.temp = &tileConfig, &s.temp
	// What few rows want of B comes from memory for them alone. They take it panel by
	// panel, each read where it lies or packed when it is wanted, while the
	// microkernel asks for the next.
	few := g.packed == nil && i1-i0 <= t.few
	mc := blocks(i1-i0, t.mc, t.mr)
	if few {
		mc = i1 - i0
	}
	if g.k == 0 && !g.ep.Accumulate {
		for i := i0; i < i1; i++ {
			clear(g.c[i*g.ldc+j0 : i*g.ldc+j1])
		}
	}
	for k0 := 0; k0 < max(g.k, 1); k0 += kc {
		k := min(kc, g.k-k0)
		args.k = g.steps(k)
		args.accum = 0
		if g.ep.Accumulate || k0 > 0 {
			args.accum = 1
		}
		var panels []float32
		places := 0 // of B, to be asked for during a block of rows
		switch {
		case k == 0 || few:
		case g.packed != nil:
			panels = g.packed.panels(k0, k, j0)
		default:
			panels = s.packB(t, g, k0, k, j0, j1)
			args.next = g.later(k0, kc, j0, j1, more)
			parts := (i1 - i0 + mc - 1) / mc
			places = (args.next.places + parts - 1) / parts
		}
		for i := i0; i < i1; i += mc {
			ie := min(i+mc, i1)
			args.next.places = places
			if k > 0 {
				s.tiles(t, g, i, ie, k0, k, j0, j1, panels)
			}
			if k0+kc >= g.k {
				s.finish(t, g, i, ie, j0, j1)
			}
		}
	}
	s.args = tileArgs{}
	s.rows = [16]*float32{}
}

// tiles runs the microkernels over rows i0 ≤ i < i1 for one block of k, on panels of
// B or, if there are none, on B itself, one panel at a time.
func (s *Scratch) tiles(t *gemmKernel, g *gemmJob, i0, i1, k0, k, j0, j1 int, panels []float32) {
	args := &s.args
	// The rows go into the fewest tiles, nHigh of low+1 rows and then others of low.
	m := i1 - i0
	count := (m + t.mr - 1) / t.mr
	low := m / count
	nHigh := m - low*count
	tile := t.tile
	switch {
	case g.packed == nil:
	case g.packed.halves():
		tile = t.halves
	case g.prec == INT8:
		tile = t.bytes
	}
	var rows []float32
	row := g.a.Stride
	switch {
	case g.copied != nil:
		row = g.copiedRow
		rows = g.copied[i0*row+t.words(k0):]
	case g.copiesA():
		row = t.row(k)
		rows = grow(&s.a, (m+t.mr)*row)
		s.copyA(rows, row, g, i0, i1, k0, k)
	default:
		rows = g.a.Data[i0*row+k0:]
	}
	args.aRow = row * 4
	run := func(i, j, height, count int) {
		if count == 0 {
			return
		}
		args.a = unsafe.Pointer(&rows[(i-i0)*row])
		args.aTile = height * args.aRow
		args.c = unsafe.Pointer(&g.c[i*g.ldc+j])
		args.tiles, args.rows = count, height
		args.fetch = 4 * (height + 8) * (1 - args.stream)
		tile[height](args)
	}
	direct := !g.b.T && !g.b.narrow() && g.prec != BF16 // what is as the microkernel reads it
	// Streamed lines become visible with the next atomic operation of the worker.
	whole := g.ep.Stream && args.accum == 0 && k == g.k && g.ldc%16 == 0 && uintptr(unsafe.Pointer(&g.c[0]))%64 == 0
	for j := j0; j < j1; j += t.nr {
		args.n = min(t.nr, j1-j)
		args.mask = maskFor(args.n)
		args.bK = t.nr * 4
		args.stream = 0
		if whole && args.n == t.nr {
			args.stream = 1
		}
		switch {
		case panels != nil:
			args.b = unsafe.Pointer(&panels[(j-j0)*g.wordsB(k)])
		case direct && args.n == t.nr:
			args.b = unsafe.Pointer(&g.b.Data[k0*g.b.Stride+j])
			args.bK = g.b.Stride * 4
		default:
			args.b = unsafe.Pointer(&s.packB(t, g, k0, k, j, j+args.n)[0])
		}
		if panels == nil && j+t.nr < g.n {
			args.next = g.ahead(k0, k, j+t.nr, min(t.nr, g.n-j-t.nr))
		}
		run(i0, j, low+1, nHigh)
		run(i0+nHigh*(low+1), j, low, count-nHigh)
	}
}

// point aims the row pointers at n rows of data, stride apart. Those behind the
// last repeat it, for what is made of them is not used.
func (s *Scratch) point(data []float32, stride, n int) *[16]*float32 {
	for r := range s.rows {
		s.rows[r] = &data[min(r, n-1)*stride]
	}
	return &s.rows
}

// place is what the microkernel asks for at once, in bytes.
const place = 128

// ahead returns where k rows of n columns of B lie.
func (g *gemmJob) ahead(k0, k, j0, n int) ahead {
	row := g.b.Stride * g.b.size()
	if g.b.T {
		column := place / g.b.size()
		return ahead{g.b.address(j0*g.b.Stride + k0), row, n, n, place - n*row, n * ((k + column - 1) / column)}
	}
	return ahead{g.b.address(k0*g.b.Stride + j0), row, k, k, 0, k}
}

// later returns where that lies, in the order of memory, which will be packed after the
// block of k from k0 on of columns j0 ≤ j < j1: the next block of k or, if the same
// worker goes on to more columns, their first.
func (g *gemmJob) later(k0, kc, j0, j1 int, more bool) ahead {
	n := j1 - j0
	switch k0 += kc; {
	case k0 < g.k:
	case more && j1 < g.n:
		k0, j0, n = 0, j1, min(n, g.n-j1)
	default:
		return ahead{}
	}
	rows, columns, at := min(kc, g.k-k0), n, k0*g.b.Stride+j0
	if g.b.T {
		rows, columns, at = n, rows, j0*g.b.Stride+k0
	}
	column := place / g.b.size()
	across := (columns + column - 1) / column
	return ahead{g.b.address(at), place, across, across, g.b.Stride*g.b.size() - across*place, rows * across}
}

// packB packs k rows of columns j0 ≤ j < j1 of B.
func (s *Scratch) packB(t *gemmKernel, g *gemmJob, k0, k, j0, j1 int) []float32 {
	dst := grow(&s.b, part(j1-j0, 1, t.nr)*t.words(k))
	s.packPanels(t, dst, g.b, g.prec, k0, k, j0, j1-j0)
	return dst
}

// packPanels writes the k×n part of b at (k0, j0) as panels, read at the given
// precision.
func (s *Scratch) packPanels(t *gemmKernel, dst []float32, b Mat, prec Precision, k0, k, j0, n int) {
	switch {
	case t.pairs && b.T:
		s.transposePairs(t, dst, b, k0, k, j0, n)
		return
	case t.pairs:
		s.copyPairs(t, dst, b, k0, k, j0, n)
		return
	case b.T:
		s.transposePanels(t, dst, b, k0, k, j0, n)
	default:
		s.copyPanels(t, dst, b, k0, k, j0, n)
	}
	if prec == BF16 {
		t.round(&dst[0], part(n, 1, t.nr)*k)
	}
}

const panelGroup = 4 // panels copied at a time: their places in dst share cache sets

func (s *Scratch) copyPanels(t *gemmKernel, dst []float32, b Mat, k0, k, j0, n int) {
	for j := 0; j < n; j += panelGroup * t.nr {
		w := min(panelGroup*t.nr, n-j)
		var mask *int32
		if w%t.nr != 0 {
			mask = maskFor(w % t.nr)
		}
		lines := b.lines(k)
		for l := 0; l < k; l += lines {
			n := min(lines, k-l)
			src, stride := s.read(&b, k0+l, j0+j, n, w)
			t.copyPanels(&dst[j*k+l*t.nr], &src[0], stride*4, k*t.nr*4, w/t.nr, n, mask)
		}
	}
}

func (s *Scratch) copyPairs(t *gemmKernel, dst []float32, b Mat, k0, k, j0, n int) {
	words := t.words(k)
	for j := 0; j < n; j += panelGroup * t.nr {
		w := min(panelGroup*t.nr, n-j)
		lines := b.lines(k)
		for l := 0; l < k; l += lines {
			n := min(lines, k-l)
			src, stride := s.read(&b, k0+l, j0+j, n, w)
			t.pairPanels(&dst[j*words+l/2*t.nr], &src[0], stride*4, words*t.nr*4, n, w)
		}
	}
	clearRest(t, dst, k, n)
}

// clearRest fills panels of pairs of k up to a whole step.
func clearRest(t *gemmKernel, dst []float32, k, n int) {
	words := t.words(k)
	if have := (k + 1) / 2; have < words {
		for j := 0; j < n; j += t.nr {
			clear(dst[j*words+have*t.nr : (j+t.nr)*words])
		}
	}
}

// transposePairs is copyPairs of columns that lie in rows.
func (s *Scratch) transposePairs(t *gemmKernel, dst []float32, b Mat, k0, k, j0, n int) {
	words := t.words(k)
	for j := 0; j < n; j += t.nr {
		for h := 0; h < t.nr; h += len(s.rows) {
			first := min(j+h, n-1)
			have := min(len(s.rows), n-first)
			src, stride := s.read(&b, j0+first, k0, have, k)
			t.pairColumns(&dst[j*words+h], s.point(src, stride, have), k)
		}
	}
	clearRest(t, dst, k, n)
}

func (s *Scratch) transposePanels(t *gemmKernel, dst []float32, b Mat, k0, k, j0, n int) {
	for j := 0; j < n; j += t.nr {
		for h := 0; h < t.nr; h += 8 {
			first := min(j+h, n-1)
			have := min(8, n-first)
			src, stride := s.read(&b, j0+first, k0, have, k)
			t.transpose(&dst[j*k+h], t.nr*4, s.point(src, stride, have), k, maskFor(k%8))
		}
	}
}

// copiesA reports whether the microkernel cannot read A where it lies, or should
// not as its rows crowd the cache.
func (g *gemmJob) copiesA() bool {
	return g.kernel.pairs || g.prec == BF16 || g.a.T || crowded(g.a.Stride) && g.n >= 4*g.kernel.nr
}

// copyA writes rows i0 ≤ i < i1 of A, k elements from k0 on, to dst as the
// microkernel reads them: at the product's precision, row words apart.
func (s *Scratch) copyA(dst []float32, row int, g *gemmJob, i0, i1, k0, k int) {
	t, words := g.kernel, g.kernel.words(k)
	if g.a.T {
		s.transposeA(dst, row, g, i0, i1, k0, k)
	}
	for i := i0; i < i1; i++ {
		x := dst[(i-i0)*row:]
		switch {
		case g.a.T:
		case t.pairs:
			t.pairRow(&x[0], &g.a.Data[i*g.a.Stride+k0], k)
			clear(x[(k+1)/2 : words]) // up to a whole step
		default:
			copy(x[:k], g.a.Data[i*g.a.Stride+k0:])
		}
		if g.prec == BF16 && !t.pairs {
			whole := x[:part(k, 1, 8)]
			clear(whole[k:]) // up to a whole pair of a packed B
			t.round(&x[0], len(whole))
		}
	}
}

// transposeA is the part of copyA that is particular to a transposed A. A few
// of its rows are done at a time, so that what lies together is read together.
func (s *Scratch) transposeA(dst []float32, row int, g *gemmJob, i0, i1, k0, k int) {
	t, m, stride := g.kernel, i1-i0, g.a.Stride
	src := g.a.Data[k0*stride+i0:]
	if !t.pairs {
		for l := 0; l < k; l += 8 {
			t.transpose(&dst[l], row*4, s.point(src[l*stride:], stride, k-l), m, maskFor(m%8))
		}
		return
	}
	const few = 32
	for l := 0; l < k; l += few {
		for i := 0; i < m; i += 16 {
			t.pairRows(&dst[i*row+l/2], row*4, &src[l*stride+i], stride*4, min(few, k-l), min(16, m-i))
		}
	}
}

// copiedRows is the number of rows that one iteration of copyJob copies.
const copiedRows = 64

// copyJob copies A before the blocks begin.
type copyJob gemmJob

// copyWhole makes room for a copy of A if several blocks would copy the same rows
// (and tells so). Behind the rows is room for those that AMX reads and does not
// use.
func (g *gemmJob) copyWhole(memory *[]float32) bool {
	if g.kernel == nil || g.k == 0 || g.strips == 1 || !g.copiesA() {
		return false
	}
	g.copiedRow = g.kernel.row(g.k)
	g.copied = grow(memory, (g.m+g.kernel.mr)*g.copiedRow)
	return true
}

func (g *copyJob) Do(i, w int) { g.do(i, g.pool.scratch[w]) }

func (g *copyJob) do(i int, s *Scratch) {
	i0 := i * copiedRows
	s.copyA(g.copied[i0*g.copiedRow:], g.copiedRow, (*gemmJob)(g), i0, min(i0+copiedRows, g.m), 0, g.k)
}

// finish applies the rest of the epilogue to a block of C that holds
// Alpha·A·B (plus what C held, with Accumulate).
func (s *Scratch) finish(t *gemmKernel, g *gemmJob, i0, i1, j0, j1 int) {
	ep := &g.ep
	if ep.Bias == nil && ep.Add == nil && ep.Act == Identity && ep.Scale == nil && ep.Deriv == nil && ep.Mul == nil {
		return
	}
	n := j1 - j0
	mask := maskFor(n % 8)
	for i := i0; i < i1; i++ {
		o := i*g.ldc + j0
		c := &g.c[o]
		if ep.Act == Identity && ep.Deriv == nil {
			t.epilogue(c, at(ep.Bias, j0), at(ep.Add, o), at(ep.Scale, j0), at(ep.Mul, o), n, mask)
			continue
		}
		if ep.Bias != nil || ep.Add != nil {
			t.epilogue(c, at(ep.Bias, j0), at(ep.Add, o), nil, nil, n, mask)
		}
		var deriv, scale []float32
		if ep.Deriv != nil {
			deriv = ep.Deriv[o : o+n]
		}
		if ep.Scale != nil {
			scale = ep.Scale[j0:j1]
		}
		Activate(ep.Act, g.c[o:o+n], deriv, scale)
		if ep.Mul != nil {
			t.epilogue(c, nil, nil, nil, &ep.Mul[o], n, mask)
		}
	}
}

// at returns the address of x[i], or nil for a nil slice.
func at(x []float32, i int) *float32 {
	if x == nil {
		return nil
	}
	return &x[i]
}
