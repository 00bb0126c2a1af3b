package convert

import (
	"fmt"
	"slices"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/model"
)

// tensor returns a block's tensor, which Bind has found.
func (f *fuser) tensor(name string) *checkpoint.Tensor {
	i := slices.IndexFunc(f.stated, func(t model.Tensor) bool { return t.Name == name })
	return f.found[i]
}

// values reads a block's tensor.
func (f *fuser) values(name string) ([]float32, error) {
	src := f.tensor(name)
	v := make([]float32, src.Elements())
	if err := src.ReadFloat32(v); err != nil {
		return nil, fmt.Errorf("%s: %w", f.src.Path, err)
	}
	return v, nil
}

// read reads a block's weights.
func (f *fuser) read(place int) (*fusion.MLP, error) {
	b := f.blocks[place]
	m := &fusion.MLP{Hidden: b.Hidden, Width: b.Width, Act: b.Act}
	for _, t := range []struct {
		name         string
		matrix, bias *[]float32
	}{{b.Gate, &m.Gate, &m.GateBias}, {b.Up, &m.Up, &m.UpBias}, {b.Down, &m.Down, &m.DownBias}} {
		if t.name == "" {
			continue
		}
		var err error
		if *t.matrix, err = f.values(t.name + ".weight"); err == nil && b.Bias {
			*t.bias, err = f.values(t.name + ".bias")
		}
		if err != nil {
			return nil, err
		}
		if shape := f.tensor(t.name + ".weight").Shape; b.Transposed {
			*t.matrix = model.Transpose(*t.matrix, shape[0], shape[1])
		}
	}
	return m, nil
}

type part struct {
	name   string
	shape  []int
	values []float32
}

// parts lists a block's own tensors under the names of a family, with the shapes
// they are stored in.
func parts(b *model.Block, block *fusion.Block) []part {
	p, c := b.Hidden, block.Width
	var list []part
	matrix := func(name string, out, in int, w, u, v, bias []float32) {
		if w == nil && u == nil {
			return // no gate, or another block's
		}
		if f := block.Factors; f != nil {
			list = append(list, part{name + ".factor_v", []int{f.Rank, in}, v}, part{name + ".factor_u", []int{out, f.Rank}, u})
		} else {
			list = append(list, matrixPart(b, name, out, in, w))
		}
		if bias != nil {
			list = append(list, part{name + ".bias", []int{out}, bias})
		}
	}
	f := block.Factors
	if f == nil {
		f = &fusion.Factors{}
	}
	matrix(b.Gate, c, p, block.Gate, f.GateU, f.GateV, block.GateBias)
	matrix(b.Up, c, p, block.Up, f.UpU, f.UpV, block.UpBias)
	matrix(b.Down, p, c, block.Down, f.DownU, f.DownV, block.DownBias)
	if block.Scale != nil {
		list = append(list, part{b.ScaleName(), []int{c}, block.Scale})
	}
	if block.Step != nil {
		list = append(list, part{b.StepName(), []int{c}, block.Step})
	}
	return list
}

// matrixPart is a block's matrix w (out × in), or nil for its shape alone, as the
// checkpoint lays it out.
func matrixPart(b *model.Block, name string, out, in int, w []float32) part {
	p := part{name + ".weight", []int{out, in}, w}
	if b.Transposed {
		p.shape = []int{in, out}
		if w != nil {
			p.values = model.Transpose(w, out, in)
		}
	}
	return p
}
