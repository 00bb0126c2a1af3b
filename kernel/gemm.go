package kernel

// Mat is a matrix operand: row r, column c of the stored matrix is
// Data[r*Stride+c]. With T set the operand is the transpose of what is stored.
type Mat struct {
	Data   []float32
	Stride int
	T      bool
}

// Precision says how a product's inputs are read; sums are always float32.
type Precision int

const (
	// FP32 multiplies float32 inputs.
	FP32 Precision = iota
	// BF16 rounds both inputs to bfloat16 (nearest even) and multiplies those.
	BF16
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
// Mul.
type Epilogue struct {
	Alpha      float32
	Accumulate bool
	Bias       []float32
	Add        []float32
	Act        Activation
	Scale      []float32
	Deriv      []float32
	Mul        []float32
}

// Gemm computes C = epilogue(A·B) on all workers: A is m×k, B is k×n (both
// after their transposition), C is m×n with stride ldc. C must not overlap the
// operands. An m, n of zero does nothing; a k of zero leaves the sum 0. It
// panics when a slice is too short for its shape.
func (p *Pool) Gemm(prec Precision, m, n, k int, a, b Mat, c []float32, ldc int, ep Epilogue) {
	checkGemm(m, n, k, a, b, c, ldc, &ep)
	p.gemm = gemmJob{prec, m, n, k, a, b, c, ldc, ep, p}
	const rows = 32
	p.Run((m+rows-1)/rows, &p.gemm)
}

// Gemm is the same product computed by the calling goroutine alone; for use
// inside a Job, on the scratch memory of its worker.
func (s *Scratch) Gemm(prec Precision, m, n, k int, a, b Mat, c []float32, ldc int, ep Epilogue) {
	checkGemm(m, n, k, a, b, c, ldc, &ep)
	gemmPortable(prec, 0, m, n, k, a, b, c, ldc, &ep)
}

type gemmJob struct {
	prec    Precision
	m, n, k int
	a, b    Mat
	c       []float32
	ldc     int
	ep      Epilogue
	pool    *Pool
}

func (g *gemmJob) Do(i, w int) {
	gemmPortable(g.prec, i*32, min(g.m, i*32+32), g.n, g.k, g.a, g.b, g.c, g.ldc, &g.ep)
}

func checkGemm(m, n, k int, a, b Mat, c []float32, ldc int, ep *Epilogue) {
	need := func(rows, cols, stride int) int {
		if rows == 0 || cols == 0 {
			return 0
		}
		return (rows-1)*stride + cols
	}
	ar, ac := m, k
	if a.T {
		ar, ac = k, m
	}
	br, bc := k, n
	if b.T {
		br, bc = n, k
	}
	switch {
	case m < 0 || n < 0 || k < 0:
		panic("kernel: Gemm: negative size")
	case a.Stride < ac && ar > 1 || len(a.Data) < need(ar, ac, a.Stride):
		panic("kernel: Gemm: A is too short")
	case b.Stride < bc && br > 1 || len(b.Data) < need(br, bc, b.Stride):
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

// gemmPortable computes rows i0 ≤ i < i1.
func gemmPortable(prec Precision, i0, i1, n, k int, a, b Mat, c []float32, ldc int, ep *Epilogue) {
	ars, acs := a.Stride, 1
	if a.T {
		ars, acs = 1, a.Stride
	}
	alpha := ep.Alpha
	if alpha == 0 {
		alpha = 1
	}
	sum := make([]float32, n)
	for i := i0; i < i1; i++ {
		clear(sum)
		if b.T {
			for j := range sum {
				var s float32
				row := b.Data[j*b.Stride:]
				for l := range k {
					s += round(prec, a.Data[i*ars+l*acs]) * round(prec, row[l])
				}
				sum[j] = s
			}
		} else {
			for l := range k {
				x := round(prec, a.Data[i*ars+l*acs])
				for j, y := range b.Data[l*b.Stride : l*b.Stride+n] {
					sum[j] += x * round(prec, y)
				}
			}
		}
		for j, v := range sum {
			o := i*ldc + j
			v *= alpha
			if ep.Bias != nil {
				v += ep.Bias[j]
			}
			if ep.Add != nil {
				v += ep.Add[o]
			}
			scale := float32(1)
			if ep.Scale != nil {
				scale = ep.Scale[j]
			}
			f, d := ep.Act.Eval(v)
			if ep.Deriv != nil {
				ep.Deriv[o] = scale * d
			}
			v = scale * f
			if ep.Mul != nil {
				v *= ep.Mul[o]
			}
			if ep.Accumulate {
				v += c[o]
			}
			c[o] = v
		}
	}
}
