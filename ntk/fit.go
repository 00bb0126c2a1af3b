package ntk

import (
	"context"
	"errors"
	"fmt"
	"math"

	"mlpfusion/kernel"
	"mlpfusion/model"
)

// FitOptions are the choices of FitSteps.
type FitOptions struct {
	// Lower is the smallest multiplier. A unit with multiplier 0 never learns.
	Lower float64
	// Ridge pulls the multipliers towards 1, relative to the mean squared norm
	// of the units' kernels; 0 is 1e-3.
	Ridge    float64
	Progress func(block string, done float64)
}

// StepFit is the fit of one block.
type StepFit struct {
	Block string    `json:"block"`
	Steps []float32 `json:"-"` // a_k of each hidden unit
	// Before and After are ‖K − K_orig‖/‖K_orig‖ on the inputs of the fit, with
	// all a_k 1 and as fitted.
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// FitSteps fits a step multiplier a_k ≥ 0 for each hidden unit of each fused
// block, so that the fused block's Adam kernel
//
//	K_b2 + Σ_k a_k·K_k,  K_k = the kernel of unit k's row of W1 (and of the gate), b1_k and column of W2,
//
// is closest to the original's in the Frobenius norm on the sequences of in,
// some 80 to 128 of which suffice. b2 belongs to no unit: its step stays.
// It is a non-negative least squares problem of one equation for each ordered
// pair of examples. Multipliers that fused already has are left out of account,
// and neither model is changed. Blocks kept as factors are not supported.
func FitSteps(ctx context.Context, pool *kernel.Pool, original, fused *model.Model, in *model.Input, opt FitOptions) ([]StepFit, error) {
	if err := comparable(original, fused); err != nil {
		return nil, err
	}
	if !(opt.Lower >= 0 && opt.Ridge >= 0) {
		return nil, fmt.Errorf("ntk: expected a lower bound and a ridge of at least 0, found %g and %g", opt.Lower, opt.Ridge)
	}
	blocks := Fused(fused)
	for _, b := range blocks {
		if fused.Blocks[b].MLP.UpV != nil {
			return nil, fmt.Errorf("ntk: %s: step multipliers need hidden units, found a block kept as factors", fused.Blocks[b].Name)
		}
	}
	if len(blocks) == 0 {
		return nil, errors.New("ntk: expected a fused model, found no fused block")
	}
	report := Options{Progress: opt.Progress}
	targets, err := Compute(ctx, pool, original, in, Options{Blocks: blocks})
	if err != nil {
		return nil, err
	}
	factors, err := gather(ctx, pool, fused, in, blocks, report.progress)
	if err != nil {
		return nil, err
	}
	fits := make([]StepFit, len(blocks))
	for i, b := range blocks {
		block := fused.Blocks[b]
		report.progress(block.Name, 0)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fits[i] = fitBlock(pool, block, factors[i], targets[i], opt)
		report.progress(block.Name, 1)
	}
	return fits, nil
}

func fitBlock(pool *kernel.Pool, block *model.Block, f *factors, target *Kernel, opt FitOptions) StepFit {
	units := unitKernels(pool, block.MLP, f)
	c, n := block.MLP.Up.W.Rows, f.examples()
	rest := make([]float32, n*n) // of the target, without b2's share
	if block.MLP.Down.B != nil {
		outputBias(pool, f, block.MLP.Down.W.Rows, rest)
	}
	for i, v := range target.Data {
		rest[i] = v - rest[i]
	}
	gram, rhs := normalEquations(pool, units, rest, c, n*n)
	a := nonNegative(gram, rhs, opt.Lower, opt.Ridge)
	fit := StepFit{Block: block.Name, Steps: make([]float32, c)}
	ones := make([]float64, c)
	for k := range a {
		fit.Steps[k] = float32(a[k])
		ones[k] = 1
	}
	norm := math.Sqrt(kernel.SumSquares(target.Data))
	fit.Before = residual(units, ones, rest) / norm
	fit.After = residual(units, a, rest) / norm
	return fit
}

// unitPanel builds the gradients of some hidden units for all examples: of each
// unit its rows of the matrices that make it, its biases and its column of W2.
type unitPanel struct {
	pool       *kernel.Pool
	layers     []layer // the last is the one that reads units
	offsets    []int32
	from, to   int
	data, sign []float32
	kernels    []float32
	products   bool // Do multiplies rather than builds
}

// length is the number of a unit's parameters.
func (u *unitPanel) length() int {
	n := 0
	for i := range u.layers {
		l := &u.layers[i]
		if i == len(u.layers)-1 {
			return n + l.out
		}
		n += l.in
		if l.bias {
			n++
		}
	}
	return n
}

// unitKernels returns the Adam kernel of every hidden unit, units×n×n.
func unitKernels(pool *kernel.Pool, mlp *model.MLP, f *factors) []float32 {
	c, n := mlp.Up.W.Rows, f.examples()
	u := &unitPanel{pool: pool, layers: expand(pool, mlp, f, nil, 0, c), offsets: f.offsets, kernels: make([]float32, c*n*n)}
	length := u.length()
	step := max(1, panelParameters/length)
	u.data, u.sign = make([]float32, n*step*length), make([]float32, n*step*length)
	for u.from = 0; u.from < c; u.from += step {
		u.to = min(c, u.from+step)
		u.products = false
		pool.Run(n, u)
		u.products = true
		pool.Run(u.to-u.from, u)
	}
	return u.kernels
}

func (u *unitPanel) Do(i, w int) {
	n, length, count := len(u.offsets)-1, u.length(), u.to-u.from
	stride := count * length
	scratch := u.pool.Scratch(w)
	if u.products { // K = G·sign(G)ᵀ of unit i
		k := u.from + i
		scratch.Gemm(kernel.FP32, n, n, length,
			kernel.Mat{Data: u.data[i*length:], Stride: stride}, kernel.Mat{Data: u.sign[i*length:], Stride: stride, T: true},
			u.kernels[k*n*n:(k+1)*n*n], n, kernel.Epilogue{})
		return
	}
	t, tokens := int(u.offsets[i]), int(u.offsets[i+1]-u.offsets[i])
	g := u.data[i*stride : (i+1)*stride]
	if tokens == 0 {
		clear(g)
	} else {
		u.build(g, t, tokens, scratch)
	}
	signs(u.sign[i*stride:(i+1)*stride], g)
}

// build writes the gradients of an example that has some tokens.
func (u *unitPanel) build(g []float32, t, tokens int, scratch *kernel.Scratch) {
	length, count, at := u.length(), u.to-u.from, 0
	for i := range u.layers {
		l := &u.layers[i]
		a, b, wide, narrow := l.d, l.x, l.out, l.in // by units × what is on their other side
		if i == len(u.layers)-1 {
			a, b, wide, narrow = l.x, l.d, l.in, l.out
		}
		scratch.Gemm(kernel.FP32, count, narrow, tokens, kernel.Mat{Data: a[t*wide+u.from:], Stride: wide, T: true},
			kernel.Mat{Data: b[t*narrow:], Stride: narrow}, g[at:], length, kernel.Epilogue{})
		at += narrow
		if i == len(u.layers)-1 || !l.bias {
			continue
		}
		for k := range count {
			var sum float32
			for s := range tokens {
				sum += a[(t+s)*wide+u.from+k]
			}
			g[k*length+at] = sum
		}
		at++
	}
}

// outputBias writes the Adam kernel of b2 to k.
func outputBias(pool *kernel.Pool, f *factors, p int, k []float32) {
	n := f.examples()
	g, s := make([]float32, n*p), make([]float32, n*p)
	for i := range n {
		t := int(f.offsets[i])
		if tokens := int(f.offsets[i+1]) - t; tokens > 0 {
			kernel.AddColumns(g[i*p:(i+1)*p], f.dy[t*p:], p, tokens)
		}
	}
	signs(s, g)
	timesTransposed(pool, g, s, n, p, k)
}

// normalEquations returns M·Mᵀ (c×c) and M·y of M (c×m) in float64.
func normalEquations(pool *kernel.Pool, m, y []float32, c, size int) (gram, rhs []float64) {
	const part = 2048 // summed in float32 before it goes into the float64 sum
	gram, rhs = make([]float64, c*c), make([]float64, c)
	g, r := make([]float32, c*c), make([]float32, c)
	for from := 0; from < size; from += part {
		k := min(part, size-from)
		a := kernel.Mat{Data: m[from:], Stride: size}
		pool.Gemm(kernel.FP32, c, c, k, a, kernel.Mat{Data: m[from:], Stride: size, T: true}, g, c, kernel.Epilogue{})
		pool.Gemm(kernel.FP32, c, 1, k, a, kernel.Mat{Data: y[from:], Stride: 1}, r, 1, kernel.Epilogue{})
		for i, v := range g {
			gram[i] += float64(v)
		}
		for i, v := range r {
			rhs[i] += float64(v)
		}
	}
	return gram, rhs
}

// residual returns ‖Σ_k a_k·M_k − y‖.
func residual(m []float32, a []float64, y []float32) float64 {
	fit := make([]float64, len(y))
	for k, v := range a {
		if v == 0 {
			continue
		}
		for i, u := range m[k*len(y) : (k+1)*len(y)] {
			fit[i] += v * float64(u)
		}
	}
	var s float64
	for i, v := range fit {
		s += (v - float64(y[i])) * (v - float64(y[i]))
	}
	return math.Sqrt(s)
}
