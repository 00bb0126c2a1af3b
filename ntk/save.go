package ntk

import (
	"fmt"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// SaveSteps writes the fused checkpoint dir to a directory being made, with the
// multipliers of the fits beside their blocks (….mlp_step) in place of any that
// it had; all else is copied byte for byte.
func SaveSteps(dir *checkpoint.Dir, out *checkpoint.Output, fits []StepFit) error {
	steps := map[string][]float32{}
	for _, f := range fits {
		b := model.Block{Name: f.Block}
		steps[b.StepSizesName()] = f.Steps
	}
	var specs []checkpoint.Spec
	for name, a := range steps {
		specs = append(specs, checkpoint.Spec{Name: name, DType: checkpoint.F32, Shape: []int{len(a)}})
	}
	var kept []*checkpoint.Tensor
	for _, name := range dir.Weights.Names() {
		if steps[name] == nil {
			t, _ := dir.Weights.Tensor(name)
			kept = append(kept, t)
			specs = append(specs, t.Spec())
		}
	}
	slices.SortFunc(specs, func(a, b checkpoint.Spec) int { return strings.Compare(a.Name, b.Name) })
	w, err := checkpoint.Create(out.Dir, specs, checkpoint.WriteOptions{Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	for name, a := range steps {
		if err := w.WriteFloat32(name, a); err != nil {
			return err
		}
	}
	for _, t := range kept {
		if err := w.Copy(t.Name, t); err != nil {
			return fmt.Errorf("%s: %w", dir.Path, err)
		}
	}
	if err := w.Commit(); err != nil {
		return err
	}
	if err := out.WriteConfig(dir.Config); err != nil {
		return err
	}
	return out.Carry(dir.Path, dir.Carry)
}
