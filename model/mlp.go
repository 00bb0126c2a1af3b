package model

import (
	"fmt"

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
	Scale             []float32 // P; nil: none
	Step              []float32 // step multipliers of the units; nil: none

	// X, H and Y are the tensors of the last forward: the input (tokens ×
	// hidden), what Down reads (tokens × width; without a gate, after a backward
	// its Grad is with respect to Up·x + b1) and the output.
	X, H, Y *nn.Tensor
	// Offsets marks where each example's rows begin in X, and the end: of an
	// expert, the tokens routed to it in the tokens' order.
	Offsets []int32

	// unitNorm is 1/P_k, the weight of unit k's squared gradient in the
	// clipping norm.
	unitNorm []float32
}

// mlp states a block in the form the configuration says, given its names and
// place.
func (b *builder) mlp(block Block) *MLP {
	blk := &block
	form, fused := b.cfg.Blocks[blk.Name]
	hidden, width := b.cfg.Hidden, b.cfg.Intermediate
	if fused {
		width = form.Width
	}
	blk.Act, blk.Hidden, blk.Width, blk.Form = b.cfg.Act, hidden, width, form
	m := &MLP{Act: b.cfg.Act}
	if form.Scale {
		m.Scale = b.fixed(blk.ScaleName(), width)
		m.unitNorm = make([]float32, width)
	}
	if form.Step {
		m.Step = b.fixed(blk.StepName(), width)
	}
	if blk.Gate != "" {
		m.GateV, m.Gate = b.projection(blk, m, blk.Gate, hidden, width, false)
	}
	m.UpV, m.Up = b.projection(blk, m, blk.Up, hidden, width, false)
	m.DownV, m.Down = b.projection(blk, m, blk.Down, width, hidden, true)
	if b.alloc {
		blk.MLP = m
	}
	b.blocks = append(b.blocks, blk)
	return m
}

// projection states one matrix of a block, or its two factors. Unit k is row k
// of the matrices that make units and element k of their biases, and column k
// of the one that reads them.
func (b *builder) projection(blk *Block, m *MLP, name string, in, out int, reads bool) (first, last *nn.Linear) {
	if rank := blk.Form.Rank; rank > 0 {
		first = &nn.Linear{W: b.matrix(in, rank, name+".factor_v")}
		last = &nn.Linear{W: b.matrix(rank, out, name+".factor_u")}
		if blk.Bias {
			last.B = b.vector(out, name+".bias", Zeros)
		}
		return first, last
	}
	at := len(b.tensors)
	last = b.stack(in, out, blk.Bias, name)
	last.W.Masked = blk.Form.Masked
	if b.alloc && (m.Scale != nil || m.Step != nil) {
		b.tensors[at].Param.Unit = &nn.Unit{Columns: reads, Step: m.Step, Norm: m.unitNorm}
		if blk.Bias && !reads {
			b.tensors[at+1].Param.Unit = &nn.Unit{Columns: true, Step: m.Step, Norm: m.unitNorm}
		}
	}
	return nil, last
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

// forward runs the MLP on x, in which the examples begin at offsets, with
// dropout probability drop on its units.
func (m *MLP) forward(t *nn.Tape, x *nn.Tensor, offsets []int32, drop float32) *nn.Tensor {
	m.X, m.Offsets = x, offsets
	if m.Gate == nil {
		m.H = product(t, x, m.UpV, m.Up, m.Act, m.Scale)
	} else {
		gate := product(t, x, m.GateV, m.Gate, m.Act, m.Scale)
		m.H = t.Product(gate, product(t, x, m.UpV, m.Up, kernel.Identity, nil))
	}
	m.Y = product(t, t.Dropout(m.H, drop), m.DownV, m.Down, kernel.Identity, nil)
	return m.Y
}

// product applies a matrix that may be kept as two factors.
func product(t *nn.Tape, x *nn.Tensor, first, last *nn.Linear, act kernel.Activation, scale []float32) *nn.Tensor {
	if first != nil {
		x = t.Linear(x, first, kernel.Identity, nil)
	}
	return t.Linear(x, last, act, scale)
}
