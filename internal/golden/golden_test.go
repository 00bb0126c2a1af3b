package golden

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// recorder is a test that remembers how it failed.
type recorder struct{ said string }

func (*recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) { r.said += fmt.Sprintf(format, args...) }

// TestComparisons: what must fail fails, NaN and nothing at all among it.
func TestComparisons(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		got, want     []float64
		tol           float64
		near, inNorm  bool
		largest, norm float64
	}{
		{[]float64{1, 2}, []float64{1, 2}, 0, true, true, 0, 0},
		{[]float64{3, 4.5}, []float64{3, 4}, 0.5, true, true, 0.5, 0.1},
		{[]float64{3, 4.5}, []float64{3, 4}, 0.3, false, true, 0.5, 0.1},
		{[]float64{3, 4.5}, []float64{3, 4}, 0.05, false, false, 0.5, 0.1},
		{[]float64{0, 0}, []float64{0, 0}, 0, true, true, 0, 0},
		{[]float64{0, 1}, []float64{0, 0}, 9, true, false, 1, inf},
		{[]float64{1, nan}, []float64{1, 2}, 9, false, false, inf, inf},
		{[]float64{nan, 1}, []float64{1, 2}, 9, false, false, inf, inf},
		{[]float64{1, 2}, []float64{1, nan}, 9, false, false, inf, inf},
		{[]float64{nan}, []float64{nan}, 9, false, false, inf, inf},
		{[]float64{inf}, []float64{inf}, 9, false, false, inf, inf},
		{[]float64{inf, 1}, []float64{1, 1}, 9, false, false, inf, inf},
		{[]float64{1}, []float64{1, 2}, 9, false, false, inf, inf},
		{[]float64{1, 2}, []float64{1}, 9, false, false, inf, inf},
		{nil, nil, 9, false, false, inf, inf},
		{[]float64{1}, []float64{1}, nan, false, false, 0, 0},
	} {
		var near, inNorm recorder
		Near(&near, "x", c.got, c.want, c.tol)
		NearNorm(&inNorm, "x", c.got, c.want, c.tol)
		if (near.said == "") != c.near || (inNorm.said == "") != c.inNorm {
			t.Errorf("%v for %v within %g: near %q, in norm %q", c.got, c.want, c.tol, near.said, inNorm.said)
		}
		if d, n := Largest(c.got, c.want), Relative(c.got, c.want); d != c.largest || n != c.norm {
			t.Errorf("%v for %v: differs by %g, %g of the norm; want %g, %g", c.got, c.want, d, n, c.largest, c.norm)
		}
	}
	for _, c := range []struct {
		got, want, tol float64
		near           bool
	}{{1, 1.5, 0.5, true}, {1.5, 1, 0.4, false}, {nan, 1, 9, false}, {1, nan, 9, false}, {inf, inf, 9, false}, {1, 1, nan, false}} {
		var r recorder
		NearValue(&r, "x", c.got, c.want, c.tol)
		if (r.said == "") != c.near {
			t.Errorf("%g for %g within %g: %q", c.got, c.want, c.tol, r.said)
		}
	}
	if n := Norm([]float32{3, 4}); n != 5 {
		t.Errorf("norm %g, want 5", n)
	}
	if n := Norm([]float64{3, nan}); n != inf {
		t.Errorf("norm %g of NaN, want +Inf", n)
	}
}

// TestDecode: expected results that are not there are no results.
func TestDecode(t *testing.T) {
	type one struct {
		A    []float64
		B    *float64
		Rest []float64 `json:"rest,omitempty"`
	}
	for _, c := range []struct{ text, say string }{
		{`[{"a": [1], "b": null}, {"A": [0], "b": 2, "rest": [1]}]`, ""},
		{`[{"a": [1], "b": 1}, {"a": [1]}]`, "the file[1]: expected the field b, found none"},
		{`[{"a": [], "b": 1}]`, "the file[0].a: expected elements, found none"},
		{`[{"a": null, "b": 1}]`, "the file[0].a: expected elements, found none"},
		{`[{"a": [1], "b": 1, "c": 1}]`, `unknown field "c"`},
		{`[]`, "the file: expected elements, found none"},
		{`null`, "the file: expected elements, found none"},
		{`[`, "unexpected EOF"},
	} {
		var to []one
		err := decode([]byte(c.text), &to)
		if c.say == "" && err != nil || c.say != "" && (err == nil || !strings.Contains(err.Error(), c.say)) {
			t.Errorf("%s: error %v, want %q", c.text, err, c.say)
		}
	}
	var nested map[string]map[string]struct{ X int }
	if err := decode([]byte(`{"a": {"b": {}}}`), &nested); err == nil || !strings.Contains(err.Error(), "the file.a.b: expected the field x") {
		t.Errorf("a field missing two maps down: %v", err)
	}
}
