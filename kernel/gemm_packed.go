package kernel

// Packed is a right operand in the order in which the microkernels read it, for
// weights that are used many times.
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
	w.shape(prec, k, n)
	p.Repack(w, b)
	return w
}

// shape makes room for an operand of k×n.
func (w *Packed) shape(prec Precision, k, n int) {
	w.prec, w.k, w.n, w.kernel = prec, k, n, gemms[prec].use
	size := k * n
	if w.kernel != nil {
		size = w.offset(k) * w.padded()
	}
	if cap(w.data) < size {
		w.data = make([]float32, size)
	}
	w.data = w.data[:size]
}

// Repack replaces the packed operand by another of the same shape; it does not
// allocate.
func (p *Pool) Repack(w *Packed, b Mat) {
	checkGemm(0, w.n, w.k, nil, &b, nil, 0, &Epilogue{})
	p.pack = packJob{w, b, p}
	if w.kernel == nil {
		p.Run(w.k, &p.pack)
	} else {
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

// padded returns the columns including those that fill up the last panel.
func (w *Packed) padded() int {
	return (w.n + w.kernel.nr - 1) / w.kernel.nr * w.kernel.nr
}

// offset returns the words a column takes up to row k0, where a block begins or
// the matrix ends.
func (w *Packed) offset(k0 int) int {
	kc := blocks(w.k, w.kernel.kc, w.kernel.kUnit())
	return k0/kc*w.kernel.words(kc) + w.kernel.words(k0%kc)
}

// panels returns the block of k rows at k0 from the panel of column j on.
func (w *Packed) panels(k0, k, j int) []float32 {
	return w.data[w.offset(k0)*w.padded()+j*w.kernel.words(k):]
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
		for j := range w.n {
			o := i*p.b.Stride + j
			if p.b.T {
				o = j*p.b.Stride + i
			}
			w.data[i*w.n+j] = round(w.prec, p.b.Data[o])
		}
		return
	}
	j := i * packColumns
	n := min(packColumns, w.n-j)
	kc := blocks(w.k, w.kernel.kc, w.kernel.kUnit())
	for k0 := 0; k0 < w.k; k0 += kc {
		k := min(kc, w.k-k0)
		p.pool.scratch[worker].packPanels(w.kernel, w.panels(k0, k, j), p.b, w.prec, k0, k, j, n)
	}
}
