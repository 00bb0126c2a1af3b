package kernel

// Mat is a matrix operand: row r, column c of the stored matrix is
// Data[r*Stride+c]. With T set the operand is the transpose of what is stored. In the
// place of Data, Half holds bfloat16 bits, or Int8 whole numbers with one of Factors for
// each stored row: of a right operand only, which is then the same product as with the
// values in float32.
type Mat struct {
	Data    []float32
	Half    []uint16
	Int8    []int8
	Factors []float32
	Stride  int
	T       bool
}

// Precision says how a product's inputs are read; sums are always float32.
type Precision int

const (
	// FP32 multiplies float32 inputs.
	FP32 Precision = iota
	// BF16 rounds both inputs to bfloat16 (nearest even) and multiplies those.
	BF16
	// INT8 is FP32, but what PackB packs is kept as whole numbers of −127 to 127, with a
	// float32 factor for each 32 elements of a column (the largest is 127), and
	// multiplied as float32: 9 bits an element, for weights that few rows read.
	INT8
)

// Activation is the function σ of an MLP.
type Activation int

const (
	Identity Activation = iota
	GELU                // x·Φ(x) with the exact erf
	GELUTanh            // the tanh form: gelu_new, gelu_pytorch_tanh
	ReLU
	SiLU // x·sigmoid(x)
	Tanh
)

// Epilogue is what happens to a product's elements v while they are in cache:
//
//	v = Alpha·Σ_k A_ik·B_kj + Bias_j + Add_ij
//	Deriv_ij = Scale_j·σ'(v)      (when Deriv is given)
//	v = Scale_j·σ(v)
//	C_ij = v·Mul_ij, or C_ij += v·Mul_ij with Accumulate
//
// Nil slices and an Alpha of 0 (read as 1) leave their step out. Add, Deriv
// and Mul are laid out as C, with C's stride. Accumulate excludes Act, Scale and
// Mul. Stream says that C is not read again soon: it may go past the caches.
type Epilogue struct {
	Alpha      float32
	Accumulate bool
	Stream     bool
	Bias       []float32
	Add        []float32
	Act        Activation
	Scale      []float32
	Deriv      []float32
	Mul        []float32
}

// Gemm computes C = epilogue(A·B) on all workers: A is m×k, B is k×n (both
// after their transposition), C is m×n with stride ldc. C and Deriv must not
// overlap the other operands. An m or n of zero does nothing; a k of zero leaves
// the sum 0. It panics when a slice is too short for its shape.
func (p *Pool) Gemm(prec Precision, m, n, k int, a, b Mat, c []float32, ldc int, ep Epilogue) {
	checkGemm(m, n, k, &a, &b, c, ldc, &ep)
	p.gemm = gemmJob{prec: prec, m: m, n: n, k: k, a: a, b: b, c: c, ldc: ldc, ep: ep, pool: p}
	p.gemm.run()
	p.gemm = gemmJob{}
}

// Gemm is the same product computed by the calling goroutine alone; for use
// inside a Job, on the scratch memory of its worker.
func (s *Scratch) Gemm(prec Precision, m, n, k int, a, b Mat, c []float32, ldc int, ep Epilogue) {
	checkGemm(m, n, k, &a, &b, c, ldc, &ep)
	s.gemm = gemmJob{prec: prec, m: m, n: n, k: k, a: a, b: b, c: c, ldc: ldc, ep: ep}
	s.gemm.plan(1)
	if s.gemm.copyWhole(&s.copied) {
		for i := range s.gemm.copyTasks() {
			(*copyJob)(&s.gemm).do(i, s)
		}
	}
	for i := range s.gemm.tasks() {
		s.gemm.do(i, s, i+1 < s.gemm.tasks())
	}
	s.gemm = gemmJob{}
}

// gemmJob is one product, cut into a grid of blocks of C that are computed
// independently.
type gemmJob struct {
	prec    Precision
	m, n, k int
	a, b    Mat
	c       []float32
	ldc     int
	ep      Epilogue

	packed     *Packed // B, instead of b
	pool       *Pool
	kernel     *gemmKernel // nil: portable
	rows, cols int         // of a block
	strips     int         // blocks in a row of blocks
	copied     []float32   // A as it is read, where blocks share a copy
	copiedRow  int         // its stride
}

func (g *gemmJob) run() {
	p := g.pool
	g.plan(p.workers)
	if g.sharesB() {
		p.shared.data = grow(&p.shared.data, p.shared.shape(g.prec, g.k, g.n))
		p.Repack(&p.shared, g.b)
		g.packed = &p.shared
	}
	if g.copyWhole(&p.copied) {
		p.Run(g.copyTasks(), (*copyJob)(g))
	}
	p.Run(g.tasks(), g)
}

// Do computes block i on worker w.
func (g *gemmJob) Do(i, w int) { g.do(i, g.pool.scratch[w], g.pool.shares[w].left()) }

// do computes block i; more tells that the same worker will have the next one.
func (g *gemmJob) do(i int, s *Scratch, more bool) {
	i0, j0 := i/g.strips*g.rows, i%g.strips*g.cols
	i1, j1 := min(i0+g.rows, g.m), min(j0+g.cols, g.n)
	if g.kernel == nil {
		gemmPortable(i0, i1, g, s)
		return
	}
	s.block(g.kernel, g, i0, i1, j0, j1, more)
}

func (g *gemmJob) tasks() int {
	if g.m == 0 || g.n == 0 {
		return 0
	}
	return (g.m + g.rows - 1) / g.rows * g.strips
}

func (g *gemmJob) copyTasks() int { return (g.m + copiedRows - 1) / copiedRows }

// checkGemm panics when an operand, unless nil, is too short for the shape.
func checkGemm(m, n, k int, a, b *Mat, c []float32, ldc int, ep *Epilogue) {
	need := func(rows, cols, stride int) int {
		if rows == 0 || cols == 0 {
			return 0
		}
		return (rows-1)*stride + cols
	}
	short := func(x *Mat, rows, cols int) bool {
		if x == nil {
			return false
		}
		if x.T {
			rows, cols = cols, rows
		}
		return x.Stride < cols && rows > 1 || x.len() < need(rows, cols, x.Stride)
	}
	switch {
	case m < 0 || n < 0 || k < 0:
		panic("kernel: Gemm: negative size")
	case a != nil && a.narrow():
		panic("kernel: Gemm: A is not float32")
	case short(a, m, k):
		panic("kernel: Gemm: A is too short")
	case short(b, k, n):
		panic("kernel: Gemm: B is too short")
	case ldc < n && m > 1 || len(c) < need(m, n, ldc):
		panic("kernel: Gemm: C is too short")
	case ep.Bias != nil && len(ep.Bias) < n || ep.Scale != nil && len(ep.Scale) < n:
		panic("kernel: Gemm: Bias or Scale is too short")
	case ep.Add != nil && len(ep.Add) < need(m, n, ldc),
		ep.Deriv != nil && len(ep.Deriv) < need(m, n, ldc),
		ep.Mul != nil && len(ep.Mul) < need(m, n, ldc):
		panic("kernel: Gemm: Add, Deriv or Mul is too short")
	case ep.Accumulate && (ep.Act != Identity || ep.Scale != nil || ep.Mul != nil || ep.Deriv != nil):
		panic("kernel: Gemm: Accumulate excludes Act, Scale, Mul and Deriv")
	}
}
