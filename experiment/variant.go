package experiment

import (
	"fmt"
	"strconv"
	"strings"

	"mlpfusion/fusion"
	"mlpfusion/kmeans"
)

// original is the method that leaves the model as it is.
const original = "none"

// Variant is a method with its modifiers, such as prune+refit.
type Variant struct {
	Name   string // as given
	Method string // of package fusion
	Fusion fusion.Options
	Steps  bool    // step sizes fitted to the original's tangent kernel
	Lowest float64 // the smallest of them
}

const modifiers = "kmeans, ward, best, restarts=N, effort=N, weighted, select, refit, fit=STEPS, steps or steps=LOWEST"

// ParseVariant reads a method's name and its modifiers, joined by "+":
// kmeans, ward, best, restarts=N and effort=N say how fusion and cluster
// cluster; weighted, select, refit and fit=STEPS are those of fusion.Options;
// steps fits step sizes to the original's tangent kernel, none below 0 or, with
// steps=LOWEST, below that.
func ParseVariant(name string) (*Variant, error) {
	parts := strings.Split(name, "+")
	v := &Variant{Name: name, Method: parts[0]}
	if _, err := fusion.Lookup(v.Method); err != nil {
		return nil, err
	}
	for _, part := range parts[1:] {
		key, value, given := strings.Cut(part, "=")
		number, err := strconv.ParseFloat(value, 64)
		takes := key == "restarts" || key == "effort" || key == "fit" || key == "steps" && given
		if v.Method == original || takes != given || given && (err != nil || number < 0) {
			return nil, fmt.Errorf("%s: expected a method and modifiers (%s), found %q", name, modifiers, part)
		}
		switch key {
		case "kmeans", "ward", "best":
			v.Fusion.Clustering = kmeans.Algorithm(key)
		case "restarts":
			v.Fusion.Restarts = int(number)
		case "effort":
			v.Fusion.Effort = int(number)
		case "weighted":
			v.Fusion.Weighted = true
		case "select":
			v.Fusion.Select = true
		case "refit":
			v.Fusion.Refit = true
		case "fit":
			v.Fusion.Fit = int(number)
		case "steps":
			v.Steps, v.Lowest = true, number
		default:
			return nil, fmt.Errorf("%s: expected modifiers out of %s, found %q", name, modifiers, part)
		}
	}
	return v, nil
}

// hasP tells whether the method keeps cluster sizes in a P.
func (v *Variant) hasP() bool { return v.Method == "fusion" || v.Method == "calibrated" }

// calibrated tells whether compressing looks at the task's texts.
func (v *Variant) calibrated() bool {
	o := v.Fusion
	return v.Method == "calibrated" || o.Weighted || o.Select || o.Refit || o.Fit > 0
}

// seeded tells whether the compressed weights depend on the seed.
func (v *Variant) seeded() bool {
	switch v.Method {
	case "svd", "prune", "magnitude":
		return v.Fusion.Fit > 0
	}
	return true
}

// compression names the compressed model that a cell starts from. Cells of one
// name share it.
func (v *Variant) compression(k Key) string {
	var parts []string
	for _, p := range strings.Split(v.Name, "+") {
		if p != "steps" && !strings.HasPrefix(p, "steps=") {
			parts = append(parts, p)
		}
	}
	name := strings.Join(parts, "+") + "_" + strconv.Itoa(k.Width)
	if v.calibrated() {
		name += "_" + k.Task
	}
	if v.seeded() {
		name += "_seed" + strconv.FormatUint(k.Seed, 10)
	}
	return name
}
