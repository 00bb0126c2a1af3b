package experiment

import (
	"fmt"

	"mlpfusion/model"
	"mlpfusion/nn"
)

// Treatments of P in training (docs/method.md). All but Identity begin as the same
// function. The kernel of Forward is not measured: what such training follows is the
// gradient of no function.
const (
	Keep     = "keep"
	Fold     = "fold"
	Divide   = "divide"
	Identity = "identity"
	Forward  = "forward"
)

// PMode is a treatment of P and what it means, in one line.
type PMode struct{ Name, About string }

// PModes lists the treatments.
func PModes() []PMode {
	return []PMode{
		{Keep, "P stays between activation and down projection, as the paper has it"},
		{Fold, "P is multiplied into the down projection, whose steps stay one size"},
		{Divide, "as keep, with each unit's learning rate divided by its P: exact with SGD"},
		{Identity, "P is left out: centroids alone, another function"},
		{Forward, "P counts in the forward pass, gradients pass it as if it were left out"},
	}
}

func pModeNames() (names []string) {
	for _, m := range PModes() {
		names = append(names, m.Name)
	}
	return names
}

// applyMode turns a model loaded with P into the form of the mode. Only Keep is
// for MLPs with a gate.
func applyMode(m *model.Model, mode string) error {
	for _, b := range m.Blocks {
		mlp := b.MLP
		if mlp.ClusterSizes == nil || mode == Keep {
			continue
		}
		if mlp.Gate != nil {
			return fmt.Errorf("p_modes: expected keep for MLPs with a gate, found %s", mode)
		}
		var unit nn.Unit
		switch mode {
		case Divide:
			unit.Norm, unit.Step = make([]float32, b.Width), make([]float32, b.Width)
			for k, p := range mlp.ClusterSizes {
				unit.Norm[k], unit.Step[k] = 1/p, 1/p
			}
		case Forward:
			mlp.Unscale = make([]float32, b.Width)
			for k, p := range mlp.ClusterSizes {
				mlp.Unscale[k] = 1 / p
			}
		case Fold:
			for i := range mlp.Down.W.Data {
				mlp.Down.W.Data[i] *= mlp.ClusterSizes[i%b.Width]
			}
			mlp.ClusterSizes = nil
		case Identity:
			mlp.ClusterSizes = nil
		}
		setUnits(m, mlp, unit)
	}
	return nil
}

// setSteps gives a block's hidden units step multipliers.
func setSteps(m *model.Model, mlp *model.MLP, steps []float32) {
	mlp.StepSizes = steps
	unit := nn.Unit{Step: steps}
	if mlp.ClusterSizes != nil {
		unit.Norm = make([]float32, len(steps))
		for k, p := range mlp.ClusterSizes {
			unit.Norm[k] = 1 / p
		}
	}
	setUnits(m, mlp, unit)
}

// setUnits sets what the optimizer knows of a block's hidden units: unit k is
// row k of up, element k of its bias, column k of down.
func setUnits(m *model.Model, mlp *model.MLP, unit nn.Unit) {
	for _, p := range m.Params {
		rows := p.Weight == mlp.Up.W
		if !rows && p.Weight != mlp.Up.B && p.Weight != mlp.Down.W {
			continue
		}
		u := unit
		u.Columns = !rows
		p.Unit = &u
	}
}
