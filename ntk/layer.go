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
	if mlp.StepSizes == nil && (kind == Adam || mlp.ClusterSizes == nil) {
		return nil
	}
	r := make([]float32, mlp.Up.W.Rows)
	for k := range r {
		r[k] = 1
		if mlp.StepSizes != nil {
			r[k] = mlp.StepSizes[k]
		}
		if kind == SGD && mlp.ClusterSizes != nil {
			r[k] /= mlp.ClusterSizes[k]
		}
		if kind == SGD { // both gradients of a product carry the root
			r[k] = float32(math.Sqrt(float64(r[k])))
		}
	}
	return r
}

// unitMemory bounds the insides of the units that are expanded at a time, bytes.
const unitMemory = 96 << 20

// unitGroup is the number of hidden units to expand at a time. Matrices kept as
// factors and cut ones are not divided.
func unitGroup(mlp *model.MLP, f *factors) int {
	units := mlp.Up.W.Rows
	for _, l := range []*nn.Linear{mlp.UpV, mlp.DownV} {
		if l != nil {
			return units
		}
	}
	if mlp.Up.W.Masked || mlp.Down.W.Masked || f.single() {
		return units
	}
	bytes := 4 * 2 * f.tokens() // of a unit's h and d
	if mlp.Gate != nil {
		bytes += 4 * f.tokens()
	}
	groups := max(1, (units*bytes+unitMemory-1)/unitMemory)
	return (units + groups - 1) / groups
}

// expand computes the inside of hidden units [from, to) of an MLP again from its
// factors, for that is much larger than they are, and returns the linear layers
// that these units are of; the output bias comes with unit 0. Each unit's
// gradients are multiplied by its rate.
func expand(pool *kernel.Pool, mlp *model.MLP, f *factors, rate []float32, from, to int) []layer {
	e := &expansion{pool: pool, mlp: mlp, from: from, units: to - from, tokens: f.tokens()}
	e.up, e.x = e.input(mlp.UpV, f.x)
	e.down, e.dy = e.output(f.dy)
	size := e.tokens * e.units
	e.h, e.d = make([]float32, size), make([]float32, size)
	if mlp.Gate != nil {
		e.gate, e.gx = e.input(mlp.GateV, f.x)
		e.dGate = make([]float32, size)
	}
	e.run()
	var layers []layer
	made := func(first, last *nn.Linear, x, d []float32) { // a matrix that makes units
		if first != nil {
			layers = append(layers, of(first, f.x, backward(pool, last, d, e.tokens)))
		}
		l := of(last, x, d)
		l.out = e.units
		if l.mask != nil {
			l.mask = l.mask[from*l.in : to*l.in]
		}
		layers = append(layers, l)
	}
	if mlp.Gate != nil {
		made(mlp.GateV, mlp.Gate, e.gx, e.dGate)
	}
	made(mlp.UpV, mlp.Up, e.x, e.d)
	if mlp.DownV != nil {
		layers = append(layers, of(mlp.DownV, e.h, e.dy), of(mlp.Down, forward(pool, mlp.DownV, e.h, e.tokens), f.dy))
	} else {
		l := of(mlp.Down, e.h, f.dy)
		l.in, l.bias = e.units, l.bias && from == 0
		layers = append(layers, l)
	}
	if rate != nil {
		for t := range e.tokens {
			for _, x := range [][]float32{e.h, e.d, e.dGate} {
				if x != nil {
					kernel.Mul(x[t*e.units:(t+1)*e.units], rate[from:to])
				}
			}
		}
	}
	return layers
}

// expansion is the work of expand.
type expansion struct {
	pool                *kernel.Pool
	mlp                 *model.MLP
	from, units, tokens int
	gate, up, down      int       // the widths of what their last factors read or, of down, give
	gx, x, dy           []float32 // what lies on the other side of the units
	h, d, dGate         []float32 // tokens×units: what Down reads; the gradients at Up's and Gate's outputs
}

// input is what the last factor of a matrix that makes units reads.
func (e *expansion) input(first *nn.Linear, x []float32) (width int, _ []float32) {
	if first == nil {
		return e.mlp.Up.W.Cols, x
	}
	return first.W.Rows, forward(e.pool, first, x, e.tokens)
}

// output is the gradient at the output of the first factor that reads units.
func (e *expansion) output(dy []float32) (width int, _ []float32) {
	if e.mlp.DownV == nil {
		return e.mlp.Down.W.Rows, dy
	}
	return e.mlp.DownV.W.Rows, backward(e.pool, e.mlp.Down, dy, e.tokens)
}

const chunk = 512 // tokens expanded at a time

func (e *expansion) run() {
	m, units := e.mlp, e.units
	reads := m.Down
	if m.DownV != nil {
		reads = m.DownV
	}
	size := min(e.tokens, chunk) * units
	deriv := make([]float32, size)
	var gated, gateDeriv []float32
	if m.Gate != nil {
		gated, gateDeriv = make([]float32, size), make([]float32, size)
	}
	for t := 0; t < e.tokens; t += chunk {
		n := min(chunk, e.tokens-t)
		h, d := e.h[t*units:(t+n)*units], e.d[t*units:(t+n)*units]
		into := kernel.Epilogue{Mul: deriv} // of the gradient at the units' outputs
		if m.Gate == nil {
			e.product(n, m.Up, e.x[t*e.up:], e.up, h, m.Act, m.ClusterSizes, deriv)
		} else { // h = gated ⊙ up; the gradient at the gate's output is dh ⊙ up ⊙ its derivative
			e.product(n, m.Gate, e.gx[t*e.gate:], e.gate, gated, m.Act, m.ClusterSizes, gateDeriv)
			e.product(n, m.Up, e.x[t*e.up:], e.up, h, kernel.Identity, nil, nil)
			into = kernel.Epilogue{}
		}
		e.pool.Gemm(kernel.FP32, n, units, e.down, kernel.Mat{Data: e.dy[t*e.down:], Stride: e.down},
			kernel.Mat{Data: reads.W.Data[e.from:], Stride: reads.W.Cols}, d, units, into)
		if m.Gate != nil {
			g := e.dGate[t*units : (t+n)*units]
			copy(g, d)
			kernel.Mul(g, h)
			kernel.Mul(g, gateDeriv[:n*units])
			kernel.Mul(h, gated[:n*units])
			kernel.Mul(d, gated[:n*units])
		}
	}
}

// product computes the units' part of a matrix's product with n tokens.
func (e *expansion) product(n int, l *nn.Linear, x []float32, in int, y []float32, act kernel.Activation, scale, deriv []float32) {
	ep := kernel.Epilogue{Act: act, Deriv: deriv}
	if l.B != nil {
		ep.Bias = l.B.Data[e.from:]
	}
	if scale != nil {
		ep.Scale = scale[e.from:]
	}
	e.pool.Gemm(kernel.FP32, n, e.units, in, kernel.Mat{Data: x, Stride: in}, kernel.Mat{Data: l.W.Data[e.from*in:], Stride: in, T: true}, y, e.units, ep)
}

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
