package model

import (
	"fmt"
	"slices"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// MLP is y = Down·(P·σ(Up·x + b1)) + b2 in whatever form it was fused to, or
// gated, y = Down·(P·σ(Gate·x) ⊙ Up·x). Biases may be absent.
type MLP struct {
	Gate, Up, Down *nn.Linear // Gate is nil in an MLP that has none
	// GateV, UpV and DownV are the first factors where a matrix is kept as two:
	// Up·x is then Up.W·(UpV.W·x), and the others alike (method svd).
	GateV, UpV, DownV *nn.Linear
	Act               kernel.Activation
	ClusterSizes      []float32 // P; nil: none
	StepSizes         []float32 // of the units; nil: none
	// Unscale, when it is 1/P, lets gradients pass P as if that were the identity:
	// an ablation (docs/method.md, "P in training"), for MLPs without a gate.
	Unscale []float32

	// Watched has a backward pass leave the gradient at the output in Y.Grad, and
	// go no further down where nothing below trains.
	Watched bool

	// X, H and Y are the tensors of the last forward: the input (tokens ×
	// hidden), what Down reads (tokens × width) and the output.
	X, H, Y *nn.Tensor
	// Residual is what the output is added to, where that is another tensor than
	// X: a family that normalises before its MLPs sets it in forward.
	Residual *nn.Tensor
	// Normed tells that the output is normalised before it is added to anything.
	Normed bool
	// Offsets marks where each example's rows begin in X, and the end: of an
	// expert, the tokens routed to it in the tokens' order.
	Offsets []int32

	alone mlps // itself

	// unitNorm is the weight of unit k's squared gradient in the clipping norm,
	// see setUnitNorms.
	unitNorm []float32
}

// Linears lists the layers that the MLP has, factors among them.
func (m *MLP) Linears() []*nn.Linear {
	all := []*nn.Linear{m.Gate, m.GateV, m.Up, m.UpV, m.Down, m.DownV}
	return slices.DeleteFunc(all, func(l *nn.Linear) bool { return l == nil })
}

// layers returns where the layer "gate", "up" or "down" is kept, or its two
// factors.
func (m *MLP) layers(matrix string) (first, last **nn.Linear) {
	switch matrix {
	case "gate":
		return &m.GateV, &m.Gate
	case "up":
		return &m.UpV, &m.Up
	}
	return &m.DownV, &m.Down
}

// setUnitNorms checks the loaded P and computes from it the weights of squared
// gradients in the clipping norm. A unit's gradient is P_k times that of one of
// its copies, so it counts 1/P_k. Where several blocks use one set of matrices
// it is Σ_e P_ek times such a gradient, each for the tokens of one block: were
// these orthogonal and of one size, it would have to count Σ_e P_ek / Σ_e P_ek².
// Such a block may have units that it does not use, P_k = 0.
func setUnitNorms(blocks []*Block) error {
	users := map[*Block][]*Block{}
	blocks = slices.DeleteFunc(slices.Clone(blocks), func(b *Block) bool { return b.MLP == nil })
	for _, b := range blocks {
		owner := Owner(blocks, b)
		if owner == nil {
			owner = b
		}
		users[owner] = append(users[owner], b)
	}
	for _, b := range blocks {
		if len(users[b]) == 0 || b.MLP.ClusterSizes == nil {
			continue
		}
		for k := range b.MLP.ClusterSizes {
			var sum, squares float32
			for _, u := range users[b] {
				p := u.MLP.ClusterSizes[k]
				if !(p >= 0) {
					return fmt.Errorf("%s: expected cluster sizes of at least 0, found %v for unit %d", u.ClusterSizesName(), p, k)
				}
				sum += p
				squares += p * p
			}
			if !(sum > 0) || squares-squares != 0 {
				return fmt.Errorf("%s: expected positive cluster sizes, found %v for unit %d", b.ClusterSizesName(), sum, k)
			}
			b.MLP.unitNorm[k] = sum / squares
		}
	}
	return nil
}

// forward runs the MLP on x, in which the examples begin at offsets, with
// dropout probability drop on its units.
func (m *MLP) forward(t *nn.Tape, x *nn.Tensor, offsets []int32, drop float32) *nn.Tensor {
	m.X, m.Offsets = x, offsets
	m.alone.of = append(m.alone.of[:0], m)
	m.alone.forward(t, drop)
	return m.Y
}

// mlps are MLPs of one kind that run side by side, each on its own X.
type mlps struct {
	of []*MLP

	xs, gates, ups, hs, ys []*nn.Tensor
	inputs, narrow, rows   []*nn.Tensor // of product
	first, last            []*nn.Linear
	scales                 [][]float32
}

func (g *mlps) forward(t *nn.Tape, drop float32) {
	if len(g.of) == 0 {
		return
	}
	act := g.of[0].Act
	g.xs, g.hs = g.xs[:0], g.hs[:0]
	for _, m := range g.of {
		g.xs = append(g.xs, m.X)
	}
	if g.of[0].Gate == nil {
		g.ups = g.product(t, g.ups[:0], g.xs, up, act, true)
	} else {
		g.gates = g.product(t, g.gates[:0], g.xs, gate, kernel.Identity, false)
		g.ups = g.product(t, g.ups[:0], g.xs, up, kernel.Identity, false)
	}
	for i, m := range g.of {
		m.H = g.ups[i]
		if m.Gate != nil {
			m.H = t.Gated(g.gates[i], m.H, act, m.ClusterSizes)
		} else if m.Unscale != nil && m.H.Deriv != nil {
			for i := range m.H.Rows {
				kernel.Mul(m.H.Deriv[i*m.H.Cols:(i+1)*m.H.Cols], m.Unscale)
			}
		}
		g.hs = append(g.hs, t.Dropout(m.H, drop))
	}
	g.ys = g.product(t, g.ys[:0], g.hs, down, kernel.Identity, false)
	for i, m := range g.of {
		m.Y = g.ys[i]
		if m.Watched {
			t.Watch(m.Y)
		}
	}
}

func gate(m *MLP) (first, last *nn.Linear) { return m.GateV, m.Gate }
func up(m *MLP) (first, last *nn.Linear)   { return m.UpV, m.Up }
func down(m *MLP) (first, last *nn.Linear) { return m.DownV, m.Down }

// product appends to ys what a matrix of each MLP, which may be kept as two
// factors, gives for its x; scaled by P.
func (g *mlps) product(t *nn.Tape, ys, xs []*nn.Tensor, matrix func(*MLP) (first, last *nn.Linear), act kernel.Activation, scaled bool) []*nn.Tensor {
	g.inputs, g.first, g.last, g.scales = append(g.inputs[:0], xs...), g.first[:0], g.last[:0], g.scales[:0]
	g.rows = g.rows[:0]
	for i, m := range g.of {
		first, last := matrix(m)
		if first != nil {
			g.first, g.rows = append(g.first, first), append(g.rows, xs[i])
		}
		var scale []float32
		if scaled {
			scale = m.ClusterSizes
		}
		g.last, g.scales = append(g.last, last), append(g.scales, scale)
	}
	if len(g.first) > 0 {
		g.narrow = t.Linears(g.narrow[:0], g.rows, g.first, kernel.Identity, nil)
		narrow := g.narrow
		for i, m := range g.of {
			if first, _ := matrix(m); first != nil {
				g.inputs[i], narrow = narrow[0], narrow[1:]
			}
		}
	}
	return t.Linears(ys, g.inputs, g.last, act, g.scales)
}
