package task

import (
	"reflect"
	"testing"
)

func TestClassOrder(t *testing.T) {
	spec := Spec{Labels: []string{"entailment", "neutral", "contradiction"}}
	for _, c := range []struct {
		names  []string
		places []int
		known  bool
	}{
		{[]string{"LABEL_0", "LABEL_1", "LABEL_2"}, []int{0, 1, 2}, true},
		{[]string{"CONTRADICTION", "NEUTRAL", "ENTAILMENT"}, []int{2, 1, 0}, true},
		{[]string{"Neutral", "contradiction", "entail-ment"}, []int{2, 0, 1}, true},
		{[]string{"entailment", "neutral", "other"}, []int{0, 1, 2}, false},
		{[]string{"neutral", "Neutral", "contradiction"}, []int{0, 1, 2}, false},
		{[]string{"negative", "positive"}, []int{0, 1, 2}, true}, // which loading refuses
		{nil, []int{0, 1, 2}, true},
	} {
		places, known := spec.ClassOrder(c.names)
		if !reflect.DeepEqual(places, c.places) || known != c.known {
			t.Errorf("%v: %v, %t", c.names, places, known)
		}
	}
	// Numbers are names as long as both sides have them.
	numbered := Spec{Labels: []string{"0", "1"}}
	for _, c := range []struct {
		names  []string
		places []int
	}{{[]string{"1", "0"}, []int{1, 0}}, {[]string{"NEGATIVE", "POSITIVE"}, []int{0, 1}}, {[]string{"LABEL_0", "LABEL_1"}, []int{0, 1}}} {
		if places, known := numbered.ClassOrder(c.names); !reflect.DeepEqual(places, c.places) || !known {
			t.Errorf("%v for 0 and 1: %v, %t", c.names, places, known)
		}
	}
}

func TestReorder(t *testing.T) {
	d := &Dataset{Spec: Spec{Labels: []string{"a", "b", "c"}}, Train: []Example{{Label: 0}, {Label: 2}}, Dev: []Example{{Label: 1}}, Extra: []Split{{Examples: []Example{{Label: 0}}}}}
	d.Reorder([]int{2, 0, 1})
	want := &Dataset{Spec: Spec{Labels: []string{"b", "c", "a"}}, Train: []Example{{Label: 2}, {Label: 1}}, Dev: []Example{{Label: 0}}, Extra: []Split{{Examples: []Example{{Label: 2}}}}}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("%+v", d)
	}
}
