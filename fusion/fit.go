package fusion

import (
	"context"
	"math"

	"mlpfusion/kernel"
)

const (
	fitBatch = 512
	fitCache = 32768
)

// fitSteps is how many steps calibrated makes for c of m's units: 300 up to a
// sixteenth of them, and then fewer, since a step takes time in proportion to c
// and the later ones gain little. A gated block goes on gaining: always 300.
func fitSteps(m *MLP, c int) int {
	if m.Gate != nil {
		return 300
	}
	return min(300, max(100, 300*m.Width/(16*c)))
}

// fitRate is the first step's length, in root mean squares of a tensor's own values,
// so that it suits any model. Where gate and up multiply, longer steps lose what they
// gain.
func fitRate(m *MLP) float64 {
	if m.Gate != nil {
		return 0.02
	}
	return 0.05
}

// fit descends the squared error of a dense block's output on cached calibration
// inputs, all its weights together: o.Fit steps of Adam on fitBatch tokens, with
// bfloat16 products and float32 weights. A step starts at fitRate and falls linearly
// to 0. P takes no part: the down projection moves with P folded in and is divided by
// it again.
//
// The first fitCache tokens are kept with the original's outputs, so that memory
// does not grow with the number of sentences. A batch is spread over all of them, for
// neighbours in a text are alike. A fit that ends worse on the first sample of them
// than it began is undone.
func fit(ctx context.Context, m *MLP, b *Block, o Options) error {
	data, err := record(ctx, m, o)
	if err != nil {
		return err
	}
	before := b.MLP.clone()
	start := data.squaredError(b, o.Pool)
	scale := b.Scale
	b.Fold()
	f := newFitter(&b.MLP, o.Pool)
	f.prec = kernel.BF16 // the noise of batches is far above its rounding
	batches := (data.tokens + fitBatch - 1) / fitBatch
	for step := range o.Fit {
		if err := ctx.Err(); err != nil {
			return err
		}
		x, y, weights, n := data.spread(step%batches, batches)
		f.gradients(x, y, weights, n)
		f.step(1 - float64(step)/float64(o.Fit))
	}
	b.unfold(scale)
	if !(data.squaredError(b, o.Pool) <= start) {
		b.MLP = before
	}
	return nil
}

// unfold takes the factors scale out of Down and makes them P again.
func (b *Block) unfold(scale []float32) {
	if scale == nil {
		return
	}
	for r := range b.Hidden {
		for k, s := range scale {
			b.Down[r*b.Width+k] /= s
		}
	}
	b.Scale = scale
}

// recording is inputs of a block and the outputs the original gives for them.
type recording struct {
	x, y   []float32
	weight []float32 // of each token; nil: all count alike
	tokens int

	batch *recording // of spread
}

// spread returns every `every`-th token, from first on. It is overwritten by the
// next call.
func (r *recording) spread(first, every int) (x, y, weights []float32, n int) {
	if r.batch == nil {
		r.batch = new(recording)
	}
	p, b := len(r.x)/r.tokens, r.batch
	b.x, b.y, b.weight = b.x[:0], b.y[:0], b.weight[:0]
	for t := first; t < r.tokens; t += every {
		b.x = append(b.x, r.x[t*p:(t+1)*p]...)
		b.y = append(b.y, r.y[t*p:(t+1)*p]...)
		if r.weight != nil {
			b.weight = append(b.weight, r.weight[t])
		}
		n++
	}
	return b.x, b.y, b.weight, n
}

// weights are those of n tokens.
func (r *recording) weights(at, n int) []float32 {
	if r.weight == nil {
		return nil
	}
	return r.weight[at : at+n]
}

func record(ctx context.Context, m *MLP, o Options) (*recording, error) {
	r := new(recording)
	err := o.teacher(m).each(ctx, true, func(x, y, w []float32, tokens int) error {
		n := min(tokens, fitCache-r.tokens)
		if w != nil {
			r.weight = append(r.weight, w[:n]...)
		}
		r.x = append(r.x, x[:n*m.Hidden]...)
		r.y = append(r.y, y[:n*m.Hidden]...)
		if r.tokens += n; n < tokens {
			return errEnough
		}
		return nil
	})
	return r, enough(err)
}

// squaredError is that of the block on the first sample tokens.
func (r *recording) squaredError(b *Block, pool *kernel.Pool) float64 {
	n := min(sample, r.tokens)
	got := make([]float32, n*b.Hidden)
	b.Forward(pool, r.x, n, got)
	kernel.Axpy(-1, r.y[:len(got)], got)
	var sum float64
	for t, w := 0, r.weights(0, n); t < n; t++ {
		sum += weightOf(w, t) * kernel.SumSquares(got[t*b.Hidden:(t+1)*b.Hidden])
	}
	return sum
}

// fitter holds one tensor of gradients and of Adam's moments for each tensor of
// the block.
type fitter struct {
	m    *MLP
	pool *kernel.Pool
	prec kernel.Precision // of the products

	tensors [6]fitted // gate, gate bias, up, up bias, down, down bias
	t       int

	// Of one batch, ×Width or ×Hidden: the projections' activations, their
	// slopes, and the gradients that flow back.
	h, gateAct, slope, lin, dh, e []float32
}

type fitted struct {
	w, grad, m1, m2 []float32
	rate            float32
}

func newFitter(m *MLP, pool *kernel.Pool) *fitter {
	f := &fitter{m: m, pool: pool}
	for i, w := range [][]float32{m.Gate, m.GateBias, m.Up, m.UpBias, m.Down, m.DownBias} {
		n := len(w)
		f.tensors[i] = fitted{w, make([]float32, n), make([]float32, n), make([]float32, n), 0}
		if n > 0 {
			f.tensors[i].rate = float32(fitRate(m) * math.Sqrt(kernel.SumSquares(w)/float64(n)))
		}
	}
	wide := fitBatch * m.Width
	f.h, f.slope, f.dh = make([]float32, wide), make([]float32, wide), make([]float32, wide)
	if m.Gate != nil {
		f.gateAct, f.lin = make([]float32, wide), make([]float32, wide)
	}
	f.e = make([]float32, fitBatch*m.Hidden)
	return f
}

// gradients computes those of Σ_t ω_t·‖ŷ_t − y_t‖²/2 over the batch, ω the tokens'
// weights.
func (f *fitter) gradients(x, y, weights []float32, n int) {
	m, p, w := f.m, f.m.Hidden, f.m.Width
	gate, gateBias, up, upBias, down, downBias := &f.tensors[0], &f.tensors[1], &f.tensors[2], &f.tensors[3], &f.tensors[4], &f.tensors[5]
	wide := n * w

	if m.Gate == nil {
		f.linear(m.Up, x, n, p, w, f.h, kernel.Epilogue{Bias: m.UpBias, Act: m.Act, Deriv: f.slope})
	} else {
		f.linear(m.Up, x, n, p, w, f.lin, kernel.Epilogue{Bias: m.UpBias})
		f.linear(m.Gate, x, n, p, w, f.gateAct, kernel.Epilogue{Bias: m.GateBias, Act: m.Act, Deriv: f.slope})
		copy(f.h, f.gateAct[:wide])
		kernel.Mul(f.h, f.lin[:wide])
	}
	f.linear(m.Down, f.h, n, w, p, f.e, kernel.Epilogue{Bias: m.DownBias})
	kernel.Axpy(-1, y, f.e)
	for t := range weights {
		kernel.Scale(f.e[t*p:(t+1)*p], weights[t])
	}

	f.outer(down, f.e, f.h, n, p, w)
	sumRows(downBias.grad, f.e, n)
	back := func(slope []float32, dz []float32) {
		f.pool.Gemm(f.prec, n, w, p, kernel.Mat{Data: f.e, Stride: p}, kernel.Mat{Data: m.Down, Stride: w}, dz, w, kernel.Epilogue{Mul: slope})
	}
	if m.Gate == nil {
		back(f.slope, f.dh)
		f.outer(up, f.dh, x, n, w, p)
		sumRows(upBias.grad, f.dh, n)
		return
	}
	back(f.gateAct, f.dh)
	f.outer(up, f.dh, x, n, w, p)
	sumRows(upBias.grad, f.dh, n)
	kernel.Mul(f.slope, f.lin[:wide])
	back(f.slope, f.dh)
	f.outer(gate, f.dh, x, n, w, p)
	sumRows(gateBias.grad, f.dh, n)
}

// linear writes epilogue(x·wᵀ) to y: x is n×in, w out×in.
func (f *fitter) linear(w, x []float32, n, in, out int, y []float32, ep kernel.Epilogue) {
	f.pool.Gemm(f.prec, n, out, in, kernel.Mat{Data: x, Stride: in}, kernel.Mat{Data: w, Stride: in, T: true}, y, out, ep)
}

// outer writes the gradient dzᵀ·x of a weight matrix: dz is n×out, x n×in.
func (f *fitter) outer(t *fitted, dz, x []float32, n, out, in int) {
	f.pool.Gemm(f.prec, out, in, n, kernel.Mat{Data: dz, Stride: out, T: true}, kernel.Mat{Data: x, Stride: in}, t.grad, in, kernel.Epilogue{})
}

// sumRows writes the sum of the rows of x to sum; a nil sum has no bias.
func sumRows(sum, x []float32, rows int) {
	clear(sum)
	if len(sum) > 0 {
		kernel.AddColumns(sum, x, len(sum), rows)
	}
}

// step moves all tensors by the share left of their rates.
func (f *fitter) step(left float64) {
	f.t++
	t := float64(f.t)
	a := kernel.AdamW{
		LR: float32(left), Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, GradScale: 1,
		Correction1: float32(1 - math.Pow(0.9, t)), Correction2: float32(1 - math.Pow(0.99, t)),
	}
	for i := range f.tensors {
		t := &f.tensors[i]
		a.Step(t.w, t.grad, t.m1, t.m2, t.rate)
	}
}
