package experiment

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"mlpfusion/convert"
	"mlpfusion/fusion"
	"mlpfusion/internal/choice"
	"mlpfusion/kmeans"
	"mlpfusion/model"
)

// original is the method that leaves the model as it is.
const original = "none"

// Variant is a method with its modifiers, such as prune+refit.
type Variant struct {
	Name   string // as given
	Method *fusion.Method
	Fusion fusion.Options
	Steps  bool    // step sizes fitted to the original's tangent kernel
	Lowest float64 // the smallest of them
	// Distill is the weight of the fine-tuned original's logits in the loss.
	Distill float64
	LoRA    int // rank of the adapter that fine-tuning trains; 0: it trains the model

	Usage  bool // widths of experts by the tokens they see
	Params bool // as many parameters, not as many units a token, as the width gives experts of their own
}

// modifiers are the words after a "+", as ParseVariant explains them.
var modifiers = []string{"kmeans", "ward", "best", "restarts=N", "effort=N", "weighted", "select", "refit", "fit=STEPS", "balance", "steps", "steps=LOWEST", "distill", "distill=WEIGHT", "lora=RANK", "experts=N", "usage", "params"}

// ParseVariant reads a method's name and its modifiers, joined by "+":
// kmeans, ward, best, restarts=N and effort=N say how fusion and cluster
// cluster; weighted, select, refit and fit=STEPS are those of fusion.Options;
// steps fits step sizes to the original's tangent kernel, none below 0 or, with
// steps=LOWEST, below that; distill fine-tunes with the fine-tuned original's
// logits beside the labels, at a weight of 0.5 or WEIGHT; lora=RANK fine-tunes an adapter of
// all layers, also of the original. Of mixtures of experts
// mc-smoe and hc-smoe take experts=N, the experts that stay; fusion and calibrated
// usage, widths by the tokens that experts see; and shared params: as many
// parameters in place of as many units a token as the width gives experts of their own.
func ParseVariant(name string) (*Variant, error) {
	parts := strings.Split(name, "+")
	method, err := fusion.Lookup(parts[0])
	if err != nil {
		return nil, choice.Unknown(parts[0], fusion.Names(nil))
	}
	v := &Variant{Name: name, Method: method}
	for _, part := range parts[1:] {
		key, value, given := strings.Cut(part, "=")
		number, err := strconv.ParseFloat(value, 64)
		takes := key == "restarts" || key == "effort" || key == "fit" || key == "experts" || key == "lora" || (key == "steps" || key == "distill") && given
		if v.Method.Name == original && key != "lora" {
			return nil, fmt.Errorf("%s: expected no modifier of the original but lora=RANK, found %q", name, part)
		}
		if takes != given || given && (err != nil || !(number >= 0)) {
			return nil, fmt.Errorf("%s: modifiers: %w", name, choice.Unknown(part, modifiers))
		}
		if given && key != "steps" && key != "distill" && (number != math.Trunc(number) || number > 1<<20) {
			return nil, fmt.Errorf("%s: %s: expected a whole number, found %s", name, key, value)
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
		case "balance":
			v.Fusion.Balance = true
		case "steps":
			v.Steps, v.Lowest = true, number
		case "distill":
			if v.Distill = number; !given {
				v.Distill = 0.5
			}
			if !(v.Distill > 0 && v.Distill <= 1) {
				return nil, fmt.Errorf("%s: expected a weight above 0 and at most 1, found %q", name, part)
			}
		case "lora":
			if v.LoRA = int(number); v.LoRA < 1 {
				return nil, fmt.Errorf("%s: lora: expected a rank of at least 1, found %s", name, value)
			}
		case "experts":
			v.Fusion.Experts = int(number)
		case "usage":
			v.Usage = true
		case "params":
			v.Params = true
		default:
			return nil, fmt.Errorf("%s: modifiers: %w", name, choice.Unknown(part, modifiers))
		}
	}
	if err := v.Method.Check(v.Fusion); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case v.LoRA > 0 && v.Steps:
		return nil, fmt.Errorf("%s: expected steps without lora, which does not train the units, found both", name)
	case v.Params && !v.together():
		return nil, fmt.Errorf("%s: expected params with a method whose experts share units, found it with %s", name, v.Method.Name)
	case v.Usage && v.Method.Mixtures:
		return nil, fmt.Errorf("%s: expected usage with a method for single experts, found it with %s", name, v.Method.Name)
	}
	return v, nil
}

// together tells whether all experts of a mixture share one set of units.
func (v *Variant) together() bool { return v.Method.Mixtures && !v.Method.Merges }

// options are those of convert for a cell's width c. What c units of each expert
// cost is the measure for the methods that compress experts together: a shared
// set of c units takes as many FLOPs, and with params one of experts·c units as
// many parameters; merging without experts=N leaves as many whole experts as
// those parameters give, and with it fuses experts to c units too.
func (v *Variant) options(c int, cfg *model.Config) convert.FuseOptions {
	o := convert.FuseOptions{Plan: convert.Plan{Width: c}, Method: v.Method.Name, Fusion: v.Fusion}
	experts, whole := 1, cfg.Intermediate
	if m := &cfg.Mixture; m.Experts > 0 {
		experts, whole = m.Experts, m.Width
	}
	switch {
	case v.Method.Merges && v.Fusion.Experts == 0:
		o.Width, o.Fusion.Experts = whole, max(1, experts*c/whole)
	case v.Params:
		o.Width = experts * c
	case v.Usage:
		o.Width, o.Budget, o.BudgetOf = 0, float64(c)/float64(whole), fusion.Params
	}
	return o
}

// fits reports a width or layers that the model does not have, and a method for
// mixtures of experts where there are none.
func (v *Variant) fits(width int, layers string, cfg *model.Config, blocks []*model.Block) error {
	if v.Method.Name == original {
		return nil
	}
	if v.Method.Mixtures && !slices.ContainsFunc(blocks, func(b *model.Block) bool { return b.Experts > 0 }) {
		return fmt.Errorf("methods: %s: expected a model with mixtures of experts, found none", v.Name)
	}
	plan := v.options(width, cfg).Plan
	plan.Layers, plan.Together = layers, v.together()
	if _, err := plan.Choose(blocks); err != nil {
		return fmt.Errorf("%s: %w", v.Name, err)
	}
	return nil
}

// hasP tells whether the method keeps cluster sizes in a P that a mode can change.
func (v *Variant) hasP() bool { return v.Method.KeepsP && !v.Method.Mixtures }

// calibrated tells whether compressing looks at the task's texts.
func (v *Variant) calibrated() bool { return v.inputs() || v.Usage }

// inputs tells whether it looks at what they make of blocks' inputs.
func (v *Variant) inputs() bool { return v.Method.UsesTexts(v.Fusion) }

// seeded tells whether the compressed weights depend on the seed.
func (v *Variant) seeded() bool { return v.Method.UsesSeed(v.Fusion) }

// compression names the compressed model that a cell starts from. Cells of one
// name share it.
func (v *Variant) compression(k Key) string {
	var parts []string
	for _, p := range strings.Split(v.Name, "+") {
		if key, _, _ := strings.Cut(p, "="); key != "steps" && key != "distill" && key != "lora" {
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
