package task

import (
	"fmt"
	"reflect"
	"strings"
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

func TestMatchClasses(t *testing.T) {
	generic := func(n int) []string {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprint("LABEL_", i))
		}
		return names
	}
	for _, c := range []struct {
		task, data, model string // classes with commas between
		places            []float32
		say               string // a note, or an error
	}{
		{"text", "bad,good", "bad,good", []float32{0, 1}, ""},
		{"text", "bad,good", "GOOD,Bad", []float32{1, 0}, ""},
		{"text", "bad,good", "good,fair,bad", []float32{2, 0}, ""},
		{"text", "good", "bad,good", []float32{1}, ""},
		{"text", "a,b,c,d", "d,c,b,other", []float32{3, 2, 1, 0}, "a, which the model does not know, is taken for its other"},
		{"text", "bad,good", "good,terrible", []float32{1, 0}, "bad, which the model does not know, is taken for its terrible"},
		{"text", "a,b,c", "c,x,y", []float32{0, 1, 2}, "the model's classes are called c, x, y, those of the data a, b, c: taken to be the same in this order"},
		{"text", "a,b,c,d", "d,c,b", nil, "expected classes of the model, which are d, c, b, found a"},
		{"text", "bad,good", "negative,positive", []float32{0, 1}, "the model's classes are called negative, positive, those of the data bad, good: taken to be the same in this order"},
		{"text", "bad,good", "a,b,c", nil, "expected classes of the model, which are a, b, c, found bad, good"},
		{"text", "1,2,3,4,5", strings.Join(generic(5), ","), []float32{0, 1, 2, 3, 4}, ""},
		{"text", "0,2", strings.Join(generic(3), ","), []float32{0, 2}, ""},
		{"text", "0,1", "negative,positive", []float32{0, 1}, ""},
		{"text", "0,2", "negative,neutral,positive", []float32{0, 2}, ""},
		{"text", "1,3", strings.Join(generic(3), ","), nil, "found 1, 3"},
		{"text", "1,2,5", "1.0,2.0,3.0,4.0,5.0", []float32{0, 1, 4}, ""},
		{"text", "-1,0,1", "1,0,-1", []float32{2, 1, 0}, ""},
		{"sst2", "negative,positive", "POSITIVE,NEGATIVE", []float32{1, 0}, ""},
		{"sst2", "negative,positive", "LABEL_0,LABEL_1", []float32{0, 1}, ""},
		{"sst2", "negative,positive", "a,b,c", nil, "expected a model of the classes negative, positive, found one of a, b, c"},
	} {
		labels, names := strings.Split(c.data, ","), strings.Split(c.model, ",")
		d := &Dataset{Spec: Spec{Name: c.task, Labels: labels}}
		for i := range labels {
			d.Dev = append(d.Dev, Example{Label: float32(i)})
		}
		notes, err := d.MatchClasses(names)
		if err != nil {
			if c.places != nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%s for %s: %v", c.data, c.model, err)
			}
			continue
		}
		var got []float32
		for _, e := range d.Dev {
			got = append(got, e.Label)
		}
		if !reflect.DeepEqual(got, c.places) || strings.Join(notes, "; ") != c.say || !reflect.DeepEqual(d.Spec.Labels, names) {
			t.Errorf("%s for %s: %v, %q", c.data, c.model, got, notes)
		}
	}
}
