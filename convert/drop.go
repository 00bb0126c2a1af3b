package convert

import (
	"fmt"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// left is what dropping experts leaves: nothing is there where none is dropped.
type left struct {
	blocks  map[*model.Block]*model.Block // of an expert that stays, its block in the new model
	rows    map[string][]int              // of the routers' tensors, the rows that stay
	kept    map[string][]int              // by mixture, the numbers of the experts that stay
	experts int                           // that there were in each
}

// dropExperts finds which experts stay, and sets their number in the new config.json.
func (f *fuser) dropExperts(cfg *checkpoint.Config) (*left, error) {
	l := &left{}
	if !f.method.Drops {
		return l, nil
	}
	l.blocks, l.rows, l.kept = map[*model.Block]*model.Block{}, map[string][]int{}, map[string][]int{}
	mixture := f.model.Config.Mixture
	l.experts = mixture.Experts
	stay := map[int][]*model.Block{} // by mixture
	number := 0
	for _, i := range f.chosen {
		if b := f.blocks[i]; f.layers[b.Name].Width > 0 {
			stay[b.Mixture] = append(stay[b.Mixture], b)
			number = len(stay[b.Mixture])
		}
	}
	if err := f.model.Config.SetExperts(cfg, number); err != nil {
		return nil, err
	}
	small, err := model.ParseConfig(cfg.Bytes())
	if err != nil {
		return nil, err
	}
	_, blocks, err := model.Describe(small)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if b.Experts == 0 {
			continue
		}
		old := stay[b.Mixture][b.Expert]
		l.blocks[old] = b
		name := mixtureName(old)
		l.kept[name] = append(l.kept[name], old.Expert)
	}
	for _, experts := range stay {
		for _, tensor := range []string{experts[0].Router, experts[0].RouterBias, experts[0].Correction} {
			if tensor == "" {
				continue
			}
			for _, file := range f.model.Find(tensor).Names() {
				l.rows[file] = l.kept[mixtureName(experts[0])]
			}
		}
	}
	return l, nil
}

// mixtureName is the name of an expert's mixture.
func mixtureName(b *model.Block) string {
	name, _, _ := strings.Cut(b.Name, ".experts.")
	return name
}

// renamed is what is said of the blocks under their new names.
func (l *left) renamed(layers map[string]checkpoint.Layer) map[string]checkpoint.Layer {
	if l.blocks == nil {
		return layers
	}
	names := map[string]string{}
	for from, to := range l.blocks {
		names[from.Name] = to.Name
	}
	now := map[string]checkpoint.Layer{}
	for name, info := range layers {
		if to, ok := names[name]; ok {
			name = to
		}
		if info.Width > 0 {
			now[name] = info
		}
	}
	return now
}

// checkDrop refuses to drop experts where the model that is left could not be said.
func (f *fuser) checkDrop() error {
	if !f.method.Drops {
		return nil
	}
	m := &f.model.Config.Mixture
	n := f.keptExperts(m.Experts)
	for i, b := range f.blocks {
		if _, ok := f.widths[i]; b.Experts > 0 && !ok {
			return fmt.Errorf("layers: expected all mixtures of experts, since config.json has one number of experts for all and %s drops some; found them without %s", f.opt.Method, b.Name)
		}
	}
	switch {
	case m.Groups > 1:
		return fmt.Errorf("%s: method %s: expected a router that chooses among all experts, found one with %d groups of them", f.src.Path, f.opt.Method, m.Groups)
	case n < m.TopK || n > m.Experts:
		return fmt.Errorf("experts: expected %d, to which each token goes, to the %d there are, found %d", m.TopK, m.Experts, n)
	}
	return nil
}

// keptExperts is how many of a mixture's experts merging leaves.
func (f *fuser) keptExperts(of int) int {
	if n := f.opt.Fusion.Experts; n != 0 {
		return n
	}
	return max(1, of/4)
}
