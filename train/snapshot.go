package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/disk"
	"mlpfusion/model"
)

// snapshot saves all that a resumed run needs.
func (r *Runner) snapshot() error {
	r.stepper.Optimizer.Flush()
	r.state.Idle = r.stepper.Optimizer.Idle()
	if err := r.metrics.Sync(); err != nil {
		return err
	}
	sections := weights(r.stepper.Model)
	err := r.stepper.Optimizer.Moments(func(name string, m, v []float32) error {
		sections = append(sections, checkpoint.Section{Name: "m." + name, Float32: m}, checkpoint.Section{Name: "v." + name, Float32: v})
		return nil
	})
	if err != nil {
		return err
	}
	return checkpoint.SaveSnapshot(filepath.Join(r.Dir, snapshotFile), &r.state, sections)
}

func weights(m *model.Model) []checkpoint.Section {
	var s []checkpoint.Section
	for _, p := range m.Params {
		s = append(s, checkpoint.Section{Name: p.Name, Float32: p.Data})
	}
	return s
}

// restore reads a snapshot's weights into m and its moments into o, each unless
// nil.
func restore(path string, s *runState, m *model.Model, o *Optimizer) error {
	var ignored any
	var into any = &ignored
	if s != nil {
		into = s
	}
	r, err := checkpoint.LoadSnapshot(path, into)
	if err != nil {
		return err
	}
	defer r.Close()
	read := func(name string, dst []float32) error {
		t, ok := r.Tensor(name)
		if !ok || t.Elements() != len(dst) {
			return fmt.Errorf("%s: %s: expected %d values, found another model's snapshot", path, name, len(dst))
		}
		return t.ReadFloat32(dst)
	}
	for _, p := range m.Params {
		if err := read(p.Name, p.Data); err != nil {
			return err
		}
	}
	if o == nil {
		return nil
	}
	o.Resume(s.Step, s.Idle)
	return o.Moments(func(name string, m, v []float32) error {
		return errors.Join(read("m."+name, m), read("v."+name, v))
	})
}

// ReadPoints reads the metrics that a run has written to its folder.
func ReadPoints(dir string) ([]Point, error) {
	path := filepath.Join(dir, MetricsFile)
	text, err := disk.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var points []Point
	for line := range strings.Lines(string(text)) {
		var p Point
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, len(points)+1, err)
		}
		points = append(points, p)
	}
	return points, nil
}
