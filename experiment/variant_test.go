package experiment

import (
	"regexp"
	"strings"
	"testing"

	"mlpfusion/convert"
	"mlpfusion/fusion"
	"mlpfusion/model"
)

// TestMixtureVariants checks what a width means to the methods for mixtures of
// experts: the FLOPs or the parameters of experts of that width.
func TestMixtureVariants(t *testing.T) {
	cfg := &model.Config{Arch: model.Arch{Intermediate: 64, Mixture: model.Mixture{Experts: 8, Width: 64}}}
	for name, want := range map[string]convert.FuseOptions{
		"fusion":               {Plan: convert.Plan{Width: 16}},
		"shared":               {Plan: convert.Plan{Width: 16}},
		"shared+params":        {Plan: convert.Plan{Width: 128}},
		"mc-smoe":              {Plan: convert.Plan{Width: 64}, Fusion: fusion.Options{Experts: 2}},
		"hc-smoe+experts=3":    {Plan: convert.Plan{Width: 16}, Fusion: fusion.Options{Experts: 3}},
		"calibrated+usage":     {Budget: 0.25, BudgetOf: fusion.Params},
		"fusion+usage+refit":   {Budget: 0.25, BudgetOf: fusion.Params},
		"mc-smoe+experts=2":    {Plan: convert.Plan{Width: 16}, Fusion: fusion.Options{Experts: 2}},
		"hc-smoe+ward":         {Plan: convert.Plan{Width: 64}, Fusion: fusion.Options{Experts: 2}},
		"shared+params+kmeans": {Plan: convert.Plan{Width: 128}},
	} {
		v, err := ParseVariant(name)
		if err != nil {
			t.Fatal(err)
		}
		o := v.options(16, cfg)
		if o.Plan != want.Plan || o.Fusion.Experts != want.Fusion.Experts || o.Budget != want.Budget || o.BudgetOf != want.BudgetOf {
			t.Errorf("%s: plan %+v, %d experts, budget %g of %d", name, o.Plan, o.Fusion.Experts, o.Budget, o.BudgetOf)
		}
		if texts := strings.Contains(name, "smoe") || strings.Contains(name, "usage"); v.calibrated() != texts {
			t.Errorf("%s: calibrated %v", name, v.calibrated())
		}
	}
	for name, want := range map[string]string{
		"fusion+experts=2": "experts: expected with a method that merges experts: mc-smoe, hc-smoe, reap, dern only",
		"fusion+params":    "expected params with a method whose experts share units, found it with fusion",
		"svd+balance":      "balance: expected with a method that keeps P: fusion, calibrated only",
		"shared+usage":     "expected usage with a method for single experts",
		"mc-smoe+experts":  `modifiers: expected one of kmeans, .*found "experts": did you mean experts=N\?`,

		"none+lora=0":         "lora: expected a rank of at least 1, found 0",
		"none+lora":           `modifiers: expected one of kmeans, .*found "lora"`,
		"none+refit":          `expected no modifier of the original but lora=RANK, found "refit"`,
		"fusion+lora=1.5":     "lora: expected a whole number, found 1.5",
		"fusion+steps+lora=4": "expected steps without lora, which does not train the units, found both",

		"svd+ward":                   `svd\+ward: clustering: expected with a method that clusters: fusion, calibrated, cluster`,
		"prune+weighted":             "weighted: expected with a method that clusters",
		"fusion+restarts=3":          "restarts: expected with the clustering kmeans only",
		"cluster+ward+effort=3":      "effort: expected with the clustering best only",
		"fusion+kmeans+restarts=1.5": "restarts: expected a whole number, found 1.5",
		"calibrated+fit=nan":         `found "fit=nan"`,
	} {
		if _, err := ParseVariant(name); err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}
}

// TestBalanceVariant: the modifier reaches the method.
func TestBalanceVariant(t *testing.T) {
	v, err := ParseVariant("calibrated+balance")
	if err != nil {
		t.Fatal(err)
	}
	if o := v.options(16, &model.Config{Arch: model.Arch{Intermediate: 64}}); o.Method != "calibrated" || !o.Fusion.Balance {
		t.Errorf("method %s, balance %v", o.Method, o.Fusion.Balance)
	}
}
