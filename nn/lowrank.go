package nn

import "mlpfusion/kernel"

// LowRank is a path beside a Linear's matrix, Scale·B·A·x of dropout's x: a low-rank
// adapter (LoRA, arXiv 2106.09685), which trains while the matrix is frozen.
type LowRank struct {
	A     *Weight // rank × in
	B     *Weight // outputs × rank
	From  int     // the first of the outputs of the Linear that it adds to
	Scale float32 // α/rank, or α/√rank
	Drop  float32 // probability of dropout on x, while training
}

type lowRank struct {
	t      *Tape
	x, y   *Tensor
	s      *LowRank
	in     []float32 // x after dropout
	narrow []float32 // A·in, rows × rank
	p      float32
	offset uint64
	dx     []float32
}

// add adds what the path gives for x to columns of y.
func (o *lowRank) add(t *Tape, x, y *Tensor, s *LowRank) {
	rank, in := s.A.Rows, s.A.Cols
	*o = lowRank{t: t, x: x, y: y, s: s, in: x.Data, narrow: t.floats(x.Rows * rank)}
	if t.Train && s.Drop > 0 {
		o.in, o.p, o.offset = t.floats(len(x.Data)), s.Drop, t.offset(len(x.Data))
		t.Pool.Run(chunks(len(x.Data)), (*lowRankDrop)(o))
	}
	t.Pool.Gemm(t.Prec, x.Rows, rank, in, kernel.Mat{Data: o.in, Stride: in}, kernel.Mat{Data: s.A.Data, Stride: in, T: true}, o.narrow, rank, kernel.Epilogue{})
	t.Pool.Gemm(t.Prec, x.Rows, s.B.Rows, rank, kernel.Mat{Data: o.narrow, Stride: rank}, kernel.Mat{Data: s.B.Data, Stride: rank, T: true},
		y.Data[s.From:], y.Cols, kernel.Epilogue{Alpha: s.Scale, Accumulate: true})
	t.record(o)
}

type lowRankDrop lowRank

func (o *lowRankDrop) Do(i, _ int) {
	a, b := chunkOf(i, len(o.in))
	kernel.DropoutApply(o.in[a:b], o.x.Data[a:b], o.t.Seed, o.offset+uint64(a), o.p)
}

// backward takes the gradients of A, B and x; that of y stays for the matrix.
func (o *lowRank) backward(t *Tape) {
	dy := t.takeGrad(o.y)
	if dy == nil || o.y.noGrad {
		return
	}
	s := o.s
	rows, rank, in := o.x.Rows, s.A.Rows, s.A.Cols
	grad, narrow := kernel.Mat{Data: dy[s.From:], Stride: o.y.Cols}, kernel.Mat{Data: o.narrow, Stride: rank}
	if !s.B.Frozen {
		db, add := s.B.gradient()
		t.Pool.Gemm(t.Prec, s.B.Rows, rank, rows, transposed(grad), narrow, db, rank, kernel.Epilogue{Alpha: s.Scale, Accumulate: add})
	}
	if s.A.Frozen && o.x.noGrad {
		return
	}
	t.Pool.Gemm(t.Prec, rows, rank, s.B.Rows, grad, kernel.Mat{Data: s.B.Data, Stride: rank}, o.narrow, rank, kernel.Epilogue{Alpha: s.Scale})
	if !s.A.Frozen {
		da, add := s.A.gradient()
		t.Pool.Gemm(t.Prec, rank, in, rows, transposed(narrow), kernel.Mat{Data: o.in, Stride: in}, da, in, kernel.Epilogue{Accumulate: add})
	}
	if o.x.noGrad {
		return
	}
	dx, add := t.gradOf(o.x)
	a := kernel.Mat{Data: s.A.Data, Stride: in}
	if o.p == 0 {
		t.Pool.Gemm(t.Prec, rows, in, rank, narrow, a, dx, in, kernel.Epilogue{Accumulate: add})
		return
	}
	t.Pool.Gemm(t.Prec, rows, in, rank, narrow, a, o.in, in, kernel.Epilogue{}) // in its own place: it has been used
	o.dx = dx
	if !add {
		clear(dx)
	}
	t.Pool.Run(chunks(len(dx)), (*lowRankUndrop)(o))
}

type lowRankUndrop lowRank

func (o *lowRankUndrop) Do(i, _ int) {
	a, b := chunkOf(i, len(o.dx))
	kernel.DropoutApply(o.in[a:b], o.in[a:b], o.t.Seed, o.offset+uint64(a), o.p)
	kernel.Add(o.dx[a:b], o.in[a:b])
}
