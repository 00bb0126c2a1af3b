package task

import (
	"regexp"
	"slices"
	"strings"
)

// generic are names that tell nothing: those that transformers gives classes
// without names, and numbers.
var generic = regexp.MustCompile(`^(LABEL_)?\d+$`)

// nameless tells that no class has a name of its own.
func nameless(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !generic.MatchString(n) })
}

// ClassOrder tells where each class of the task stands among the names that a
// checkpoint has for them, without regard to case and signs: models of MNLI differ
// in their order. known is false when the checkpoint has other names; where either
// side has none but numbers, or another number of them, the classes keep their
// places.
func (s Spec) ClassOrder(names []string) (places []int, known bool) {
	places = make([]int, len(s.Labels))
	for i := range places {
		places[i] = i
	}
	if len(names) != len(s.Labels) {
		return places, true
	}
	plain := func(name string) string {
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name))
	}
	found := make([]int, len(places))
	for i, label := range s.Labels {
		found[i] = slices.IndexFunc(names, func(n string) bool { return plain(n) == plain(label) })
		if found[i] < 0 || slices.Contains(found[:i], found[i]) {
			return places, nameless(names) || nameless(s.Labels)
		}
	}
	return found, true
}

// Reorder puts the classes in other places, in the labels and in all examples.
func (d *Dataset) Reorder(places []int) {
	labels := make([]string, len(places))
	for i, place := range places {
		labels[place] = d.Spec.Labels[i]
	}
	d.Spec.Labels = labels
	splits := [][]Example{d.Train, d.Dev, d.Test}
	for _, s := range d.Extra {
		splits = append(splits, s.Examples)
	}
	for _, examples := range splits {
		for i := range examples {
			examples[i].Label = float32(places[int(examples[i].Label)])
		}
	}
}
