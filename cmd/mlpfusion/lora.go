package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

// loraFlags say how an adapter is trained.
type loraFlags struct {
	model.AdapterOptions
	base string
}

func (l *loraFlags) add(f *pflag.FlagSet) {
	f.IntVar(&l.Rank, "lora", 0, "train an adapter of this `rank` and leave the model as it is (LoRA)")
	f.Float64Var(&l.Alpha, "lora-alpha", 0, "the adapter's factor, divided by the rank (default twice the rank)")
	f.StringSliceVar(&l.Targets, "lora-targets", []string{"all"}, "layers to adapt: all, attention, mlp, or ends of `names`")
	f.Lookup("lora-targets").DefValue = "all" // which pflag shows as [all]
	f.Float64Var(&l.Dropout, "lora-dropout", 0, "probability of dropout on what the adapter reads")
	f.BoolVar(&l.RSLoRA, "rslora", false, "divide the factor by the rank's square root")
	f.StringVar(&l.base, "base", "", "keep the model's own matrices in memory as fp32, bf16 or int8 (default fp32, or bf16 as the checkpoint has them)")
}

// options reads what the flags say; nil without an adapter.
func (l *loraFlags) options(f *pflag.FlagSet, scratch, routers bool) (*model.AdapterOptions, error) {
	adapter := f.Changed("lora")
	var conditions []condition
	for _, name := range []string{"lora-alpha", "lora-targets", "lora-dropout", "rslora", "base"} {
		conditions = append(conditions, condition{name, adapter, "--lora"})
	}
	if err := onlyWith(f, conditions); err != nil || !adapter {
		return nil, err
	}
	if err := atLeast(f, 1, "lora"); err != nil {
		return nil, err
	}
	if err := above0(f, "lora-alpha"); err != nil {
		return nil, err
	}
	switch {
	case l.Alpha == 0:
		l.Alpha = 2 * float64(l.Rank)
	case math.IsInf(l.Alpha, 1):
		return nil, usageError{errors.New("lora-alpha: expected a finite number, found +Inf")}
	}
	switch {
	case !(l.Dropout >= 0 && l.Dropout < 1):
		return nil, usageError{fmt.Errorf("lora-dropout: expected a probability below 1, found %g", l.Dropout)}
	case l.base != "" && !slices.Contains([]string{"fp32", "bf16", "int8"}, l.base):
		return nil, usageError{fmt.Errorf("base: expected fp32, bf16 or int8, found %q", l.base)}
	case scratch:
		return nil, usageError{errors.New("lora: expected a trained model to adapt, found --init")}
	case routers:
		return nil, usageError{errors.New("train-routers: expected without --lora, which leaves routers as they are")}
	}
	return &l.AdapterOptions, nil
}

// adapt gives the model that is to be trained a new adapter.
func (t *training) adapt(a *app, dir *checkpoint.Dir, head *model.LoadOptions) error {
	adapter, err := model.NewAdapter(dir, *head, t.model, *t.config.LoRA)
	if err != nil {
		return usageError{fmt.Errorf("lora-targets: %w", err)}
	}
	head.Adapter = adapter
	switch {
	case t.base == "" && halves(dir):
		head.Base = model.BaseBF16
	case t.base != "fp32":
		head.Base = model.Base(t.base)
	}
	t.config.Base = head.Base
	return nil
}

// tellAdapter says what of a model is trained.
func (a *app) tellAdapter(m *model.Model) {
	trained, all, layers, factored := 0, 0, 0, 0
	for _, p := range m.Params {
		trained += len(p.Data)
		if strings.HasSuffix(p.Name, ".lora_A.weight") {
			layers++
		}
	}
	for i := range m.Tensors {
		if p := m.Tensors[i].Param; p != nil {
			all += p.Len()
		}
	}
	for _, b := range m.Blocks {
		if b.Form.Rank > 0 {
			factored++
		}
	}
	kept := ""
	if in := map[model.Base]string{model.BaseBF16: "in bfloat16", model.BaseInt8: "as int8 with a factor for each row"}[m.Config.Base]; in != "" {
		kept = "; the model's own matrices are kept " + in
	}
	a.ui.say("an adapter of %s, %s parameters, beside a model of %s%s", count(layers, "layer"), significant(float64(trained)), significant(float64(all)), kept)
	if len(m.Config.Adapter.Save) > 0 {
		a.ui.say("trained whole: %s", strings.Join(m.Config.Adapter.Save, ", "))
	}
	if factored > 0 {
		a.ui.say("%s kept as factors: the adapter has nothing for them", count(factored, "MLP"))
	}
}

// halves tells whether all of a checkpoint's matrices are stored in bfloat16.
func halves(dir *checkpoint.Dir) bool {
	for _, name := range dir.Weights.Names() {
		if t, _ := dir.Weights.Tensor(name); len(t.Shape) > 1 && t.DType != checkpoint.BF16 {
			return false
		}
	}
	return true
}

// addAdapter adds the flag that names an adapter to take MODEL with.
func (a *app) addAdapter(f *pflag.FlagSet) {
	f.StringVar(&a.adapter, "adapter", "", "folder of an adapter that MODEL is taken with, as train --lora or PEFT writes it")
}

// loadAdapted loads a model with the adapter's products added to its matrices, if an
// adapter is named.
func (a *app) loadAdapted(dir *checkpoint.Dir, opt model.LoadOptions) (*model.Model, error) {
	adapter, err := a.openAdapter()
	if err != nil {
		return nil, err
	}
	defer adapter.Close()
	opt.Adapter, opt.Merge = adapter, true
	m, _, err := model.Load(dir, opt)
	return m, err
}

// openAdapter opens the adapter that is named; nil if none is.
func (a *app) openAdapter() (*checkpoint.Adapter, error) {
	if a.adapter == "" {
		return nil, nil
	}
	return checkpoint.OpenAdapter(a.adapter)
}
