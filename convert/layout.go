package convert

import (
	"fmt"

	"mlpfusion/fusion"
)

// read reads a block's weights.
func (f *fuser) read(place int) (*fusion.MLP, error) {
	b := f.blocks[place]
	values, err := f.model.Read(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.src.Path, err)
	}
	block := fusion.Block{MLP: fusion.MLP{Hidden: b.Hidden, Width: b.Width, Act: b.Act}}
	for role, v := range blockValues(&block) {
		*v = values[role]
	}
	return &block.MLP, nil
}

// values reads a tensor that is no block's.
func (f *fuser) values(name string) ([]float32, error) {
	v, err := f.model.Find(name).Values()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.src.Path, err)
	}
	return v, nil
}

// blockValues names all the slices a block may hold by their roles, as
// model.Block.In has them.
func blockValues(b *fusion.Block) map[string]*[]float32 {
	v := map[string]*[]float32{
		"gate": &b.Gate, "gate.bias": &b.GateBias, "up": &b.Up, "up.bias": &b.UpBias, "down": &b.Down, "down.bias": &b.DownBias,
		"scale": &b.Scale, "step": &b.Step,
	}
	if f := b.Factors; f != nil {
		v["gate.u"], v["gate.v"] = &f.GateU, &f.GateV
		v["up.u"], v["up.v"], v["down.u"], v["down.v"] = &f.UpU, &f.UpV, &f.DownU, &f.DownV
	}
	return v
}
