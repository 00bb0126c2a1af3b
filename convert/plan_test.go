package convert

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mlpfusion/model"
)

// TestPlanStacks holds the plan called paper to the paper's: blocks 5, 7, 9 and 11 of
// encoder and decoder of a Switch model of base size, every expert; in models
// without experts the last two thirds of the layers of each stack.
func TestPlanStacks(t *testing.T) {
	stacks := func(layers int, names ...string) (blocks []*model.Block) {
		for _, stack := range names {
			for l := range layers {
				blocks = append(blocks, &model.Block{Name: fmt.Sprint(stack, l), Stack: stack, Layer: l, Width: 8})
			}
		}
		return blocks
	}
	switches := stacks(12, "encoder", "decoder")
	var withExperts []*model.Block
	for _, b := range switches {
		if b.Layer%2 == 0 {
			withExperts = append(withExperts, b)
			continue
		}
		for e := range 2 {
			expert := *b
			expert.Name, expert.Experts, expert.Expert = fmt.Sprintf("%s.%d", b.Name, e), 2, e
			withExperts = append(withExperts, &expert)
		}
	}
	for _, c := range []struct {
		blocks []*model.Block
		layers string
		want   string
	}{
		{stacks(4, ""), "", "0 1 2 3"},
		{stacks(6, ""), "paper", "2 3 4 5"},
		{stacks(3, "encoder", "decoder"), "paper", "encoder1 encoder2 decoder1 decoder2"},
		{stacks(3, "encoder", "decoder"), "0,2", "encoder0 encoder2 decoder0 decoder2"},
		{withExperts, "0-1", "encoder0 encoder1.0 encoder1.1 decoder0 decoder1.0 decoder1.1"},
		{withExperts, "paper", "encoder5.0 encoder5.1 encoder7.0 encoder7.1 encoder9.0 encoder9.1 encoder11.0 encoder11.1 " +
			"decoder5.0 decoder5.1 decoder7.0 decoder7.1 decoder9.0 decoder9.1 decoder11.0 decoder11.1"},
	} {
		widths, err := Plan{Layers: c.layers}.Choose(c.blocks)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for i, b := range c.blocks {
			if widths[i] != 0 {
				names = append(names, b.Name)
			}
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("layers %q: chose %s, want %s", c.layers, got, c.want)
		}
	}
	if _, err := (Plan{Layers: "3"}).Choose(slices.Clone(withExperts[:2])); err == nil || !strings.Contains(err.Error(), "0-1") {
		t.Errorf("a layer beyond the last gives %v", err)
	}
}
