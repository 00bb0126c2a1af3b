package kernel

import "unsafe"

// gemmKernel is one implementation of the product's inner parts. C is computed
// in tiles of up to mr×nr elements whose sums stay in registers; k goes in
// blocks of up to kc, rows in blocks of up to mc (a multiple of mr), columns in
// blocks of up to nc, so that their packed part of B stays in the second-level
// cache.
//
// B is packed into panels of nr columns, [k][nr], so that a panel's block stays
// in the first-level cache while the rows pass. A is read where it lies if its
// rows lie well, and otherwise from tiles packed as [k][rows].
//
// With pairs, an element of a packed operand is a word of two bfloat16, of k and
// k+1. A is then rounded too: once, row by row, before the blocks begin (see
// stageA), or if it is transposed block by block, as tiles.
type gemmKernel struct {
	mr, nr      int
	kc, mc, nc  int
	pairs       bool
	step        int               // words of k that a microkernel takes at once
	tile        []func(*tileArgs) // by rows
	transpose   func(dst *float32, stride int, rows *[16]*float32, k int, mask *int32)
	copyPanels  func(dst, src *float32, stride, panel, panels, k int, mask *int32)
	copyTile    func(dst *float32, dstStride int, src *float32, srcStride, k int, mask *int32)
	round       func(x *float32, n int)
	pairPanels  func(dst, src *float32, stride, panel, k, n int)
	pairTile    func(dst, src *float32, stride, k, n int) // nil: tiles are packed by rows
	pairRow     func(dst, src *float32, n int)
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

// kUnit returns what a block of k, save the last, is a multiple of.
func (t *gemmKernel) kUnit() int {
	if t.pairs {
		return 2 * t.step
	}
	return t.step
}

// crowded reports whether rows of this stride fall on each other in the
// first-level cache, so that it pays to pack them.
func crowded(stride int) bool { return stride*4%4096 == 0 }

// gemmFor holds the implementation for each precision and level; none for
// Portable, nor in builds without assembly.
var gemmFor [2][AMX + 1]*gemmKernel

// tileArgs is what a microkernel reads; the assembly knows its layout. It
// computes tiles of its number of rows, one below the other.
type tileArgs struct {
	a, b, c  unsafe.Pointer
	k        int // steps
	aRow, aK int // A's strides in bytes
	bK       int // B's
	cRow     int // C's
	aTile    int // from one tile of A to the next, bytes
	tiles    int
	n        int // columns to store
	alpha    float32
	accum    uint32 // C += instead of C =
	mask     *int32 // maskFor(nr, n)
	rows     int    // of a tile; the following are AMX's
	config   *[64]byte
	temp     *[32 * 32]float32
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
func (s *Scratch) block(t *gemmKernel, g *gemmJob, i0, i1, j0, j1 int) {
	args := &s.args
	kc := blocks(g.k, t.kc, t.kUnit())
	args.alpha = g.ep.alpha()
	args.cRow = g.ldc * 4
	args.config, args.temp = &tileConfig, &s.temp
	mc := blocks(i1-i0, t.mc, t.mr)
	if g.k == 0 && !g.ep.Accumulate {
		for i := i0; i < i1; i++ {
			clear(g.c[i*g.ldc+j0 : i*g.ldc+j1])
		}
	}
	for k0 := 0; k0 < max(g.k, 1); k0 += kc {
		k := min(kc, g.k-k0)
		args.k = t.words(k) / t.step
		args.accum = 0
		if g.ep.Accumulate || k0 > 0 {
			args.accum = 1
		}
		var panels []float32
		// A few rows do not repay the packing of B: it is read where it lies.
		direct := g.packed == nil && !g.b.T && g.prec == FP32 && i1-i0 <= 3*t.mr
		switch {
		case k == 0:
		case g.packed != nil:
			panels = g.packed.panels(k0, k, j0)
		default:
			panels = s.packB(t, g, k0, k, j0, j1, direct)
		}
		for i := i0; i < i1; i += mc {
			ie := min(i+mc, i1)
			if k > 0 {
				s.tiles(t, g, i, ie, k0, k, j0, j1, panels, direct)
			}
			if k0+kc >= g.k {
				s.finish(t, g, i, ie, j0, j1)
			}
		}
	}
	s.args = tileArgs{}
	s.rows = [16]*float32{}
}

// tiles runs the microkernels over rows i0 ≤ i < i1 for one block of k.
func (s *Scratch) tiles(t *gemmKernel, g *gemmJob, i0, i1, k0, k, j0, j1 int, panels []float32, direct bool) {
	args := &s.args
	// The rows go into the fewest tiles, nHigh of low+1 rows and then others of low.
	m := i1 - i0
	count := (m + t.mr - 1) / t.mr
	low := m / count
	nHigh := m - low*count
	words := t.words(k)
	var pack []float32
	byRow := t.pairs && (g.stage != nil || t.pairTile == nil)
	row := words // of byRow, in words
	switch {
	case g.stage != nil:
		row = g.stageRow
		pack = g.stage[i0*row+t.words(k0):]
	case byRow:
		pack = s.pairA(t, g, i0, k0, k, m)
	case t.pairs, g.a.T || g.prec != FP32 || crowded(g.a.Stride) && j1-j0 >= 4*t.nr:
		pack = s.packA(t, g, i0, k0, k, m, low, nHigh)
	}
	run := func(i, j, height, count int) {
		if count == 0 {
			return
		}
		switch {
		case pack == nil:
			args.a = unsafe.Pointer(&g.a.Data[i*g.a.Stride+k0])
			args.aRow, args.aK = g.a.Stride*4, 4
			args.aTile = height * args.aRow
		case byRow:
			args.a = unsafe.Pointer(&pack[(i-i0)*row])
			args.aRow, args.aK = row*4, 4
			args.aTile = height * args.aRow
		default:
			args.a = unsafe.Pointer(&pack[(i-i0)*words])
			args.aRow, args.aK = 4, height*4
			args.aTile = height * words * 4
		}
		args.c = unsafe.Pointer(&g.c[i*g.ldc+j])
		args.tiles, args.rows = count, height
		t.tile[height](args)
	}
	for j := j0; j < j1; j += t.nr {
		args.n = min(t.nr, j1-j)
		args.mask = maskFor(args.n)
		args.bK = t.nr * 4
		switch {
		case !direct:
			args.b = unsafe.Pointer(&panels[(j-j0)*words])
		case args.n < t.nr:
			args.b = unsafe.Pointer(&panels[0])
		default:
			args.b = unsafe.Pointer(&g.b.Data[k0*g.b.Stride+j])
			args.bK = g.b.Stride * 4
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

// packB packs k rows of columns j0 ≤ j < j1 of B; of a B that is read where it
// lies, only a last panel narrower than nr.
func (s *Scratch) packB(t *gemmKernel, g *gemmJob, k0, k, j0, j1 int, direct bool) []float32 {
	n := j1 - j0
	if direct {
		j0, n = j0+n/t.nr*t.nr, n%t.nr
	}
	dst := grow(&s.b, part(n, 1, t.nr)*t.words(k))
	if n > 0 {
		s.packPanels(t, dst, g.b, g.prec, k0, k, j0, n)
	}
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
		copyPairs(t, dst, b, k0, k, j0, n)
		return
	case b.T:
		s.transposePanels(t, dst, b, k0, k, j0, n)
	default:
		copyPanels(t, dst, b, k0, k, j0, n)
	}
	if prec == BF16 {
		t.round(&dst[0], part(n, 1, t.nr)*k)
	}
}

const panelGroup = 4 // panels copied at a time: their places in dst share cache sets

func copyPanels(t *gemmKernel, dst []float32, b Mat, k0, k, j0, n int) {
	for j := 0; j < n; j += panelGroup * t.nr {
		w := min(panelGroup*t.nr, n-j)
		var mask *int32
		if w%t.nr != 0 {
			mask = maskFor(w % t.nr)
		}
		t.copyPanels(&dst[j*k], &b.Data[k0*b.Stride+j0+j], b.Stride*4, k*t.nr*4, w/t.nr, k, mask)
	}
}

func copyPairs(t *gemmKernel, dst []float32, b Mat, k0, k, j0, n int) {
	words := t.words(k)
	for j := 0; j < n; j += panelGroup * t.nr {
		w := min(panelGroup*t.nr, n-j)
		t.pairPanels(&dst[j*words], &b.Data[k0*b.Stride+j0+j], b.Stride*4, words*t.nr*4, k, w)
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
			t.pairColumns(&dst[j*words+h], s.point(b.Data[(j0+first)*b.Stride+k0:], b.Stride, n-first), k)
		}
	}
	clearRest(t, dst, k, n)
}

func (s *Scratch) transposePanels(t *gemmKernel, dst []float32, b Mat, k0, k, j0, n int) {
	for j := 0; j < n; j += t.nr {
		for h := 0; h < t.nr; h += 8 {
			first := min(j+h, n-1)
			rows := s.point(b.Data[(j0+first)*b.Stride+k0:], b.Stride, n-first)
			t.transpose(&dst[j*k+h], t.nr*4, rows, k, maskFor(k%8))
		}
	}
}

// packA packs m rows of A at (i0, k0) as tiles of low+1 (the first nHigh) and low
// rows, [k][rows], read at the product's precision; of pairs, a transposed A's.
func (s *Scratch) packA(t *gemmKernel, g *gemmJob, i0, k0, k, m, low, nHigh int) []float32 {
	words := t.words(k)
	size := (m*words + 7) / 8 * 8
	dst := grow(&s.a, size+16) // a group of columns is written past its end
	for i := 0; i < m; {
		h := low
		if i < nHigh*(low+1) {
			h++
		}
		switch {
		case t.pairs:
			t.pairTile(&dst[i*words], &g.a.Data[k0*g.a.Stride+i0+i], g.a.Stride*4, k, h)
		case g.a.T:
			t.copyTile(&dst[i*k], h*4, &g.a.Data[k0*g.a.Stride+i0+i], g.a.Stride*4, k, maskFor(h))
		default:
			// Eight rows at a time; what a group of fewer writes past its own
			// rows, the groups before it then overwrite.
			for r0 := (h - 1) / 8 * 8; r0 >= 0; r0 -= 8 {
				rows := s.point(g.a.Data[(i0+i+r0)*g.a.Stride+k0:], g.a.Stride, h-r0)
				t.transpose(&dst[i*k+r0], h*4, rows, k, maskFor(k%8))
			}
		}
		i += h
	}
	if g.prec == BF16 && !t.pairs {
		t.round(&dst[0], size)
	}
	return dst
}

// pairA packs m rows of a transposed A at (i0, k0) as rows of bfloat16. Behind
// them is room for the rows that AMX reads and does not use.
func (s *Scratch) pairA(t *gemmKernel, g *gemmJob, i0, k0, k, m int) []float32 {
	words := t.words(k)
	dst := grow(&s.a, (m+t.mr)*words)
	stride := part(k, 1, 8)
	rows := grow(&s.c, m*stride)
	for l := 0; l < k; l += 8 {
		from := s.point(g.a.Data[(k0+l)*g.a.Stride+i0:], g.a.Stride, k-l)
		t.transpose(&rows[l], stride*4, from, m, maskFor(m%8))
	}
	for i := range m {
		t.pairRow(&dst[i*words], &rows[i*stride], k)
		clear(dst[i*words+(k+1)/2 : (i+1)*words])
	}
	return dst
}

// stageRows is the number of rows that one iteration of stageJob rounds.
const stageRows = 16

// stageJob rounds the rows of A to bfloat16 before the blocks begin.
type stageJob gemmJob

// stageA makes room for A's rows as pairs, if the kernel wants them; their
// stride does not crowd the cache. Behind them is room for the rows that AMX
// reads and does not use.
func (g *gemmJob) stageA(memory *[]float32) bool {
	if g.kernel == nil || !g.kernel.pairs || g.a.T || g.k == 0 {
		return false
	}
	g.stageRow = part(g.kernel.words(g.k), 1, 16)
	if crowded(g.stageRow) {
		g.stageRow += 16
	}
	g.stage = grow(memory, (g.m+g.kernel.mr)*g.stageRow)
	return true
}

func (g *stageJob) Do(i, _ int) {
	words := g.kernel.words(g.k)
	for r := i * stageRows; r < min((i+1)*stageRows, g.m); r++ {
		row := g.stage[r*g.stageRow:]
		g.kernel.pairRow(&row[0], &g.a.Data[r*g.a.Stride], g.k)
		clear(row[(g.k+1)/2 : words])
	}
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
