package ntk

import (
	"math"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// layer is what the gradients of one linear layer follow from: for an example
// with tokens t, G = Σ_t δ_t·x_tᵀ and, of its bias, Σ_t δ_t.
type layer struct {
	x, d    []float32 // tokens×in: its input; tokens×out: the gradient at its output
	in, out int
	bias    bool
	mask    []float32 // out×in, zero where a weight was cut and does not train; nil: none
}

// rates returns by how much the products of each hidden unit's gradients count
// in a kernel: its step multiplier and, for SGD, 1/P. Nil stands for ones.
func rates(mlp *model.MLP, kind Kind) []float32 {
	if mlp.Step == nil && (kind == Adam || mlp.Scale == nil) {
		return nil
	}
	r := make([]float32, mlp.Up.W.Rows)
	for k := range r {
		r[k] = 1
		if mlp.Step != nil {
			r[k] = mlp.Step[k]
		}
		if kind == SGD && mlp.Scale != nil {
			r[k] /= mlp.Scale[k]
		}
		if kind == SGD { // both gradients of a product carry the root
			r[k] = float32(math.Sqrt(float64(r[k])))
		}
	}
	return r
}

// expand computes the inside of an MLP again from its factors, for that is much
// larger than they are, and returns its linear layers. Each hidden unit's
// gradients are multiplied by its rate.
func expand(pool *kernel.Pool, mlp *model.MLP, f *factors, rate []float32) []layer {
	tokens := int(f.offsets[f.examples()])
	units, p := mlp.Up.W.Rows, mlp.Down.W.Rows
	x, dy := f.x, f.dy // of the two layers on either side of the activation
	in, out := p, p
	if mlp.UpV != nil {
		in = mlp.UpV.W.Rows
		x = forward(pool, mlp.UpV, f.x, tokens)
	}
	if mlp.DownV != nil {
		out = mlp.DownV.W.Rows
		dy = backward(pool, mlp.Down, f.dy, tokens)
	}
	h, d := make([]float32, tokens*units), make([]float32, tokens*units)
	deriv := make([]float32, min(tokens, chunk)*units)
	last := mlp.Down
	if mlp.DownV != nil {
		last = mlp.DownV
	}
	for t := 0; t < tokens; t += chunk {
		n := min(chunk, tokens-t)
		ep := kernel.Epilogue{Act: mlp.Act, Scale: mlp.Scale, Deriv: deriv}
		if mlp.Up.B != nil {
			ep.Bias = mlp.Up.B.Data
		}
		pool.Gemm(kernel.FP32, n, units, in, kernel.Mat{Data: x[t*in:], Stride: in}, kernel.Mat{Data: mlp.Up.W.Data, Stride: in, T: true},
			h[t*units:], units, ep)
		pool.Gemm(kernel.FP32, n, units, out, kernel.Mat{Data: dy[t*out:], Stride: out}, kernel.Mat{Data: last.W.Data, Stride: units},
			d[t*units:], units, kernel.Epilogue{Mul: deriv})
	}
	var layers []layer
	if mlp.UpV != nil {
		layers = append(layers, of(mlp.UpV, f.x, backward(pool, mlp.Up, d, tokens)))
	}
	layers = append(layers, of(mlp.Up, x, d))
	if mlp.DownV != nil {
		layers = append(layers, of(mlp.DownV, h, dy), of(mlp.Down, forward(pool, mlp.DownV, h, tokens), f.dy))
	} else {
		layers = append(layers, of(mlp.Down, h, f.dy))
	}
	if rate != nil {
		for t := range tokens {
			kernel.Mul(h[t*units:(t+1)*units], rate)
			kernel.Mul(d[t*units:(t+1)*units], rate)
		}
	}
	return layers
}

const chunk = 512 // tokens expanded at a time

func of(l *nn.Linear, x, d []float32) layer {
	y := layer{x: x, d: d, in: l.W.Cols, out: l.W.Rows, bias: l.B != nil}
	if l.W.Masked {
		y.mask = l.W.Data
	}
	return y
}

// forward returns x·Wᵀ of a layer without a bias.
func forward(pool *kernel.Pool, l *nn.Linear, x []float32, tokens int) []float32 {
	in, out := l.W.Cols, l.W.Rows
	y := make([]float32, tokens*out)
	pool.Gemm(kernel.FP32, tokens, out, in, kernel.Mat{Data: x, Stride: in}, kernel.Mat{Data: l.W.Data, Stride: in, T: true}, y, out, kernel.Epilogue{})
	return y
}

// backward returns the gradient at a layer's input, dy·W.
func backward(pool *kernel.Pool, l *nn.Linear, dy []float32, tokens int) []float32 {
	in, out := l.W.Cols, l.W.Rows
	dx := make([]float32, tokens*in)
	pool.Gemm(kernel.FP32, tokens, in, out, kernel.Mat{Data: dy, Stride: out}, kernel.Mat{Data: l.W.Data, Stride: in}, dx, in, kernel.Epilogue{})
	return dx
}

func masked(layers []layer) bool {
	for i := range layers {
		if layers[i].mask != nil {
			return true
		}
	}
	return false
}

// sides returns the wider and the narrower of x and d: gradients are built
// as wide×narrow matrices, G or its transpose, by rows of the wide side.
func (l *layer) sides() (a, b []float32, wide, narrow int) {
	if l.out >= l.in {
		return l.d, l.x, l.out, l.in
	}
	return l.x, l.d, l.in, l.out
}
