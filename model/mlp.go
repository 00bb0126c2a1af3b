package model

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// MLP is y = Down·(P·σ(Up·x + b1)) + b2 in whatever form it was fused to.
type MLP struct {
	Up, Down *nn.Linear
	// UpV and DownV are the first factors where a matrix is kept as two:
	// Up·x is then Up.W·(UpV.W·x), and Down alike (method svd).
	UpV, DownV *nn.Linear
	Act        kernel.Activation
	Scale      []float32 // P; nil: none
	Step       []float32 // step multipliers of the units; nil: none

	// X, H and Y are the tensors of the last forward: the input (tokens ×
	// hidden), P·σ(…) (tokens × width; after a backward its Grad is with
	// respect to Up·x + b1) and the output.
	X, H, Y *nn.Tensor

	// unitNorm is 1/P_k, the weight of unit k's squared gradient in the
	// clipping norm.
	unitNorm []float32
}

// mlp states a block: the matrices up and down (names without .weight), in the
// form the configuration says.
func (b *builder) mlp(block string, layer int, up, down string) *MLP {
	form, fused := b.cfg.Blocks[block]
	hidden, width := b.cfg.Hidden, b.cfg.Intermediate
	if fused {
		width = form.Width
	}
	blk := &Block{Name: block, Layer: layer, Up: up, Down: down, Act: b.cfg.Act, Hidden: hidden, Width: width, Form: form}
	m := &MLP{Act: b.cfg.Act}
	if form.Scale {
		m.Scale = b.fixed(blk.ScaleName(), width)
		m.unitNorm = make([]float32, width)
	}
	if form.Step {
		m.Step = b.fixed(blk.StepName(), width)
	}
	if form.Rank > 0 {
		m.UpV = &nn.Linear{W: b.matrix(hidden, form.Rank, up+".factor_v")}
		m.Up = &nn.Linear{W: b.matrix(form.Rank, width, up+".factor_u"), B: b.vector(width, up+".bias", Zeros)}
		m.DownV = &nn.Linear{W: b.matrix(width, form.Rank, down+".factor_v")}
		m.Down = &nn.Linear{W: b.matrix(form.Rank, hidden, down+".factor_u"), B: b.vector(hidden, down+".bias", Zeros)}
	} else {
		first := len(b.tensors)
		m.Up = b.linear(hidden, width, up)
		m.Down = b.linear(width, hidden, down)
		if b.alloc && (form.Scale || form.Step) {
			// Unit k is row k of up, element k of its bias, column k of down.
			for i, columns := range []bool{false, true, true} {
				b.tensors[first+i].Param.Unit = &nn.Unit{Columns: columns, Step: m.Step, Norm: m.unitNorm}
			}
		}
	}
	if b.alloc {
		blk.MLP = m
		if form.Masked {
			m.Up.W.Masked, m.Down.W.Masked = true, true
		}
	}
	b.blocks = append(b.blocks, blk)
	return m
}

// settle computes what depends on the loaded P, whose elements are positive.
func (m *MLP) settle() error {
	for k, p := range m.Scale {
		if !(p > 0) {
			return fmt.Errorf("expected positive cluster sizes, found %v for unit %d", p, k)
		}
		m.unitNorm[k] = 1 / p
	}
	return nil
}

func (m *MLP) forward(t *nn.Tape, x *nn.Tensor) *nn.Tensor {
	m.X = x
	h := x
	if m.UpV != nil {
		h = t.Linear(h, m.UpV, kernel.Identity, nil)
	}
	m.H = t.Linear(h, m.Up, m.Act, m.Scale)
	h = m.H
	if m.DownV != nil {
		h = t.Linear(h, m.DownV, kernel.Identity, nil)
	}
	m.Y = t.Linear(h, m.Down, kernel.Identity, nil)
	return m.Y
}
