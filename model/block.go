package model

import (
	"slices"
	"strings"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// Block is one MLP that can be fused, and how a checkpoint lays it out. An expert
// of a mixture is a block of its own.
type Block struct {
	Name  string // e.g. bert.encoder.layer.3
	Stack string // "encoder" or "decoder" in models that have both, else ""
	Layer int    // its layer's number within the stack
	Depth int    // its layer's place in the forward pass, counted through all stacks

	Gate, Up, Down Matrix // Gate is zero in an MLP that has none
	Bias           bool   // the matrices have biases
	Act            kernel.Activation

	// Of an expert: its number among the Experts of mixture number Mixture, of which
	// TopK see each token, and the names of the router's matrix (Experts × hidden) and
	// of its bias, "" if it has none. Experts is 0 for a dense MLP.
	Experts, Expert, Mixture, TopK int
	Router, RouterBias             string
	// Correction is the name of what is added to the experts' scores for the choice, ""
	// if there is none.
	Correction string
	// Shared tells that it is a mixture's expert that every token passes through.
	Shared bool

	Hidden   int
	Width    int // as loaded
	Original int // before it was fused
	// WidthKey is the key of config.json that holds the width where a stock loader has
	// it, as one of WidthTimes equal parts.
	WidthKey   string
	WidthTimes int
	multiple   int // see Arch.Multiple
	Form       BlockConfig
	MLP        *MLP // nil where memory was not asked for
}

// Matrix is one matrix of a block, stated as Name.weight, with its bias.
type Matrix struct {
	Name string
	// Place says where it lies while it is one matrix: factors and biases are not
	// transposed, and factors lie under their own names.
	Place
	Also []Place // see Tensor.Also
}

// Mixed tells whether the block is an expert of a mixture, or its shared one.
func (b *Block) Mixed() bool { return b.Experts > 0 || b.Shared }

// Gated tells whether the block has a gate.
func (b *Block) Gated() bool { return b.Gate.Name != "" }

// Units is Arch.Units for the block as it is.
func (b *Block) Units(share float64) int {
	parts := max(1, b.WidthTimes)
	return parts * unitsOf(share, b.Width/parts, b.multiple)
}

// Share is the block's share of its layer's tokens, were they even among experts.
func (b *Block) Share() float64 {
	if b.Experts == 0 {
		return 1
	}
	return float64(b.TopK) / float64(b.Experts)
}

// Matrices is the number of the block's matrices.
func (b *Block) Matrices() int {
	if b.Gated() {
		return 3
	}
	return 2
}

// ClusterSizesName and StepSizesName are the names of the fixed tensors beside a
// block.
func (b *Block) ClusterSizesName() string { return b.Name + ".mlp_scale" }
func (b *Block) StepSizesName() string    { return b.Name + ".mlp_step" }

// Tensors states what the checkpoint holds of the block.
func (b *Block) Tensors() []Tensor { return b.In(b.Form) }

// In states what a checkpoint holds of the block in a form. The roles are
//
//	scale, step             P and the step sizes
//	gate, up, down          a matrix, or
//	gate.v, gate.u …        its factors: u·v (method svd)
//	gate.bias …             its bias
//
// Matrices are (outputs × inputs), or the transpose where the checkpoint has that.
func (b *Block) In(form BlockConfig) []Tensor {
	var list []Tensor
	add := func(role, name string, init Init, place Place, shape ...int) {
		list = append(list, Tensor{Name: name, Shape: shape, Place: place, Init: init, Block: b, Role: role, Layer: len(shape) == 2 && form.Rank == 0})
	}
	if form.ClusterSizes {
		add("scale", b.ClusterSizesName(), Zeros, Place{}, form.Width)
	}
	if form.StepSizes {
		add("step", b.StepSizesName(), Zeros, Place{}, form.Width)
	}
	if form.Weights != "" {
		return list
	}
	for _, m := range []struct {
		role string
		Matrix
		out, in int
	}{{"gate", b.Gate, form.Width, b.Hidden}, {"up", b.Up, form.Width, b.Hidden}, {"down", b.Down, b.Hidden, form.Width}} {
		if form.Apart && m.Stack > 0 {
			m.Also = append(slices.Clone(m.Also), m.Place)
			m.Place = Place{Transposed: m.Transposed}
		}
		bias := m.Place
		bias.Transposed = false
		if before, ok := strings.CutSuffix(bias.In, ".weight"); ok {
			bias.In = before + ".bias"
		}
		switch {
		case m.Name == "":
			continue
		case form.Rank > 0:
			add(m.role+".v", m.Name+".factor_v", Normal, Place{}, form.Rank, m.in)
			add(m.role+".u", m.Name+".factor_u", Normal, Place{}, m.out, form.Rank)
			bias = Place{}
		case m.Transposed:
			add(m.role, m.Name+".weight", Normal, m.Place, m.in, m.out)
		default:
			add(m.role, m.Name+".weight", Normal, m.Place, m.out, m.in)
			list[len(list)-1].Also = m.Also
		}
		if b.Bias {
			add(m.role+".bias", m.Name+".bias", Zeros, bias, m.out)
		}
	}
	return list
}

// Owner returns the block whose matrices b uses; nil when it has its own. Which
// blocks may be so tied is checked by ReadConfig.
func Owner(blocks []*Block, b *Block) *Block {
	if b.Form.Weights == "" {
		return nil
	}
	for _, o := range blocks {
		if o.Name == b.Form.Weights {
			return o
		}
	}
	return nil
}

// mlp states a block in the form that the configuration says, given its names and
// place.
func (b *builder) mlp(block Block) *MLP {
	blk, c := &block, b.cfg
	if blk.Original == 0 {
		blk.Original = c.Intermediate
	}
	if blk.WidthKey == "" {
		blk.WidthKey = families[c.Type].widthKey
	}
	blk.WidthTimes = max(1, blk.WidthTimes)
	form, fused := c.Blocks[blk.Name]
	if !fused {
		form.Width = blk.Original
	}
	blk.Act, blk.Bias, blk.Hidden = c.Act, c.MLPBias, c.Hidden
	blk.Width, blk.Form, blk.multiple = form.Width, form, c.Multiple
	m := &MLP{Act: c.Act}
	if form.ClusterSizes {
		m.unitNorm = make([]float32, form.Width)
	}
	if owner := Owner(b.blocks, blk); owner != nil && b.alloc {
		m.Gate, m.Up, m.Down = owner.MLP.Gate, owner.MLP.Up, owner.MLP.Down
	}
	for _, t := range blk.Tensors() {
		matrix, part, _ := strings.Cut(t.Role, ".")
		first, last := m.layers(matrix)
		if t.Role == "down" && c.names.scaledInit {
			t.Init = Residual
		}
		switch {
		case t.Role == "scale":
			m.ClusterSizes = b.fixed(t)
		case t.Role == "step":
			m.StepSizes = b.fixed(t)
		case part == "v":
			*first = &nn.Linear{W: b.tensor(t)}
		case part == "bias":
			(*last).B = b.tensor(t)
		default:
			*last = &nn.Linear{W: b.tensor(t)}
			(*last).W.Masked = form.Masked
		}
		if t.Layer {
			first, out, all := t.outputs()
			b.adapt(*last, t.Module(), 0, first, out, all)
		}
		// Unit k is row k of the matrices that make units and element k of their
		// biases, and column k of the one that reads them.
		if p := b.tensors[len(b.tensors)-1].Param; p != nil && form.Rank == 0 && t.Role != "down.bias" && (form.ClusterSizes || form.StepSizes) {
			p.Unit = &nn.Unit{Columns: matrix == "down" || part == "bias", Step: m.StepSizes, Norm: m.unitNorm}
		}
	}
	if b.alloc {
		blk.MLP = m
	}
	b.blocks = append(b.blocks, blk)
	return m
}
