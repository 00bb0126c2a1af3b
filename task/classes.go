package task

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
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
	found, missing := s.byName(names)
	if len(missing) > 0 {
		return places, nameless(names) || nameless(s.Labels)
	}
	return found, true
}

// byName finds each class's name, without regard to case and signs, and numbers by
// their value; missing are the classes without one, whose place is -1.
func (s Spec) byName(names []string) (found, missing []int) {
	plain := func(name string) string {
		name = labelName(name)
		if strings.Trim(name, "-0123456789.") == "" {
			return name // a number, whose signs count
		}
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name))
	}
	found = make([]int, len(s.Labels))
	for i, label := range s.Labels {
		found[i] = slices.IndexFunc(names, func(n string) bool { return plain(n) == plain(label) })
		if found[i] < 0 || slices.Contains(found[:i], found[i]) {
			found[i] = -1
			missing = append(missing, i)
		}
	}
	return found, missing
}

// MatchClasses gives the examples the classes of a checkpoint with these names,
// which the data set takes over. Where half of its own or more are among them, the
// names decide; the others are taken for those that are left, in their order.
// Otherwise, of as many classes, they are taken to be the same in this order, and
// numbers for the places of classes. notes say what was taken for what. A class
// that the checkpoint has no place for is an error; a class of the checkpoint that
// the data lack is none.
func (d *Dataset) MatchClasses(names []string) (notes []string, err error) {
	s := d.Spec
	if s.Name != genericTask && len(names) != len(s.Labels) {
		return nil, fmt.Errorf("expected a model of the classes %s, found one of %s", strings.Join(s.Labels, ", "), strings.Join(names, ", "))
	}
	places, missing := s.byName(names)
	switch {
	case len(missing) == 0:
	case 2*len(missing) <= len(s.Labels):
		var left []int
		for i := range names {
			if !slices.Contains(places, i) {
				left = append(left, i)
			}
		}
		if len(left) < len(missing) {
			return nil, fmt.Errorf("expected classes of the model, which are %s, found %s", strings.Join(names, ", "), s.Labels[missing[len(left)]])
		}
		for i, m := range missing {
			places[m] = left[i]
			notes = append(notes, fmt.Sprintf("%s, which the model does not know, is taken for its %s", s.Labels[m], names[left[i]]))
		}
	case len(names) == len(s.Labels):
		if !nameless(names) && !nameless(s.Labels) {
			notes = append(notes, fmt.Sprintf("the model's classes are called %s, those of the data %s: taken to be the same in this order", strings.Join(names, ", "), strings.Join(s.Labels, ", ")))
		}
		for i := range places {
			places[i] = i
		}
	default:
		for i, label := range s.Labels {
			places[i], err = strconv.Atoi(label)
			if err != nil || places[i] < 0 || places[i] >= len(names) {
				return nil, fmt.Errorf("expected classes of the model, which are %s, found %s", strings.Join(names, ", "), strings.Join(s.Labels, ", "))
			}
		}
	}
	d.relabel(places)
	d.Spec.Labels = slices.Clone(names)
	return notes, nil
}

// Reorder puts the classes in other places, in the labels and in all examples.
func (d *Dataset) Reorder(places []int) {
	labels := make([]string, len(places))
	for i, place := range places {
		labels[place] = d.Spec.Labels[i]
	}
	d.Spec.Labels = labels
	d.relabel(places)
}

// relabel gives all examples other places for their classes.
func (d *Dataset) relabel(places []int) {
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
