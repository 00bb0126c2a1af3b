package fusion

import (
	"context"
	"errors"
	"math"

	"mlpfusion/kernel"
)

// weigh scales the sub-MLP matrix x in place so that distances between rows
// stand for differences of the block's output on the calibration inputs: to
// first order, moving unit i's up row by δ changes the output by
// w2_i·σ'_i·(δ·x), and moving its down column by δ changes it by δ·a_i. So each
// column of W1 is multiplied by the root mean square of its input, unit i's
// share of W1 and b1 by ‖w2_i‖·rms(σ'_i), and its share of W2 by rms(a_i), with
// a_i the unit's activation. Gated, the gate's share has rms(σ'(g_i)·u_i) in
// place of rms(σ'_i) and the up projection's rms(σ(g_i)).
func weigh(ctx context.Context, m *MLP, x []float32, o Options) error {
	u, err := m.use(ctx, o)
	if err != nil {
		return err
	}
	norm := make([]float64, m.Width)
	for r := range m.Hidden {
		for i, v := range m.Down[r*m.Width : (r+1)*m.Width] {
			norm[i] += float64(v) * float64(v)
		}
	}
	list, d := m.parts()
	for _, t := range list {
		slope := u.up
		if t.name == "gate" || t.name == "gate bias" {
			slope = u.gate
		}
		for i := range m.Width {
			row := x[i*d+t.at:]
			for k := range t.n {
				w := u.down[i]
				if t.name != "down" {
					w = math.Sqrt(norm[i]) * slope[i]
					if !t.bias {
						w *= u.input[k]
					}
				}
				row[k] *= float32(w)
			}
		}
	}
	return nil
}

// use holds root mean squares over the calibration tokens, the first sample of them.
type use struct {
	input          []float64 // Hidden: of the inputs
	gate, up, down []float64 // Width: of what multiplies an error of that projection's output
}

func (m *MLP) use(ctx context.Context, o Options) (*use, error) {
	u := &use{make([]float64, m.Hidden), make([]float64, m.Width), make([]float64, m.Width), make([]float64, m.Width)}
	n, mass := 0, 0.0
	size := chunk * m.Width
	act, slope := make([]float32, size), make([]float32, size)
	var lin []float32
	if m.Gate != nil {
		lin = make([]float32, size)
	}
	err := o.teacher(m).each(ctx, false, func(x, _, weights []float32, tokens int) error {
		if n >= sample {
			return errEnough
		}
		n += tokens
		mass += massOf(weights, tokens)
		addSquares(u.input, x, weights, tokens)
		if m.Gate == nil {
			linear(o.Pool, m.Up, x, tokens, m.Hidden, m.Width, act, kernel.Epilogue{Bias: m.UpBias, Act: m.Act, Deriv: slope})
			addSquares(u.up, slope, weights, tokens)
			addSquares(u.down, act, weights, tokens)
			return nil
		}
		linear(o.Pool, m.Up, x, tokens, m.Hidden, m.Width, lin, kernel.Epilogue{Bias: m.UpBias})
		linear(o.Pool, m.Gate, x, tokens, m.Hidden, m.Width, act, kernel.Epilogue{Bias: m.GateBias, Act: m.Act, Deriv: slope})
		addSquares(u.up, act, weights, tokens)
		kernel.Mul(slope, lin[:tokens*m.Width])
		addSquares(u.gate, slope, weights, tokens)
		kernel.Mul(act, lin[:tokens*m.Width])
		addSquares(u.down, act, weights, tokens)
		return nil
	})
	if err := enough(err); err != nil {
		return nil, err
	}
	for _, sums := range [][]float64{u.input, u.gate, u.up, u.down} {
		for i, s := range sums {
			sums[i] = math.Sqrt(s / mass)
			if math.IsNaN(sums[i]) || math.IsInf(sums[i], 0) {
				return nil, errNotFinite
			}
		}
	}
	return u, nil
}

var errNotFinite = errors.New("fusion: the calibration inputs hold values that are not finite numbers")

// addSquares adds the squares of x's columns (rows×len(sum)), each row's times its
// weight where there are weights, to sum.
func addSquares(sum []float64, x, weights []float32, rows int) {
	for r := range rows {
		w := weightOf(weights, r)
		for j, v := range x[r*len(sum) : (r+1)*len(sum)] {
			sum[j] += w * float64(v) * float64(v)
		}
	}
}
