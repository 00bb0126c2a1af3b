package task

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"mlpfusion/internal/golden"

	"pgregory.net/rapid"
)

func TestMetricsAgainstScikitLearn(t *testing.T) {
	var cases []struct {
		Name                string
		Predictions, Labels []float32
		Regression          bool `json:",omitempty"`
		Metrics             map[string]*float64
	}
	golden.JSON(t, "testdata/metrics.json", &cases)
	for _, c := range cases {
		for name, want := range c.Metrics {
			got := metrics[name](c.Predictions, c.Labels)
			if want == nil { // the peer says NaN: we say 0
				want = new(float64)
			}
			// Both sum at most 60 products in float64; Pearson of numbers near 1e4 loses
			// 1e4² / 1 of the 1e-16 relative precision when a mean is taken off.
			if !(math.Abs(got-*want) <= 1e-9) {
				t.Errorf("%s: %s is %v, expected %v", c.Name, name, got, *want)
			}
		}
	}
}

func TestScore(t *testing.T) {
	spec, err := Lookup("SST-2")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Score(spec, []float32{1, 0, 0, 1, 2, 2}, []float32{0, 1, 1})
	if err != nil || len(got) != 1 || got[0].Name != Accuracy || !(math.Abs(got[0].Value-2.0/3) <= 1e-12) {
		t.Errorf("got %v, %v; expected an accuracy of 2/3, the first of equal logits winning", got, err)
	}
	nan := float32(math.NaN())
	for _, c := range []struct {
		logits, labels []float32
		say            string
	}{
		{nil, nil, "found none"},
		{[]float32{1, 2, 3}, []float32{0}, "expected 1 × 2 logits, found 3"},
		{[]float32{1, nan}, []float32{0}, "expected finite logits, found NaN for example 0"},
	} {
		if _, err := Score(spec, c.logits, c.labels); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("got error %v, expected %q", err, c.say)
		}
	}
}

// Pearson's correlation does not change with scale and shift, Spearman's not
// with any increasing function.
func TestCorrelationInvariance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 40).Draw(t, "n")
		whole := rapid.SliceOfN(rapid.IntRange(-20, 20), n, n)
		a, b := whole.Draw(t, "a"), whole.Draw(t, "b")
		x, y, scaled, cubed := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
		for i := range n {
			x[i], y[i] = float32(a[i]), float32(b[i])
			scaled[i], cubed[i] = 4*x[i]-8, x[i]*x[i]*x[i] // exact in float32
		}
		if p, q := pearson(x, y), pearson(scaled, y); !(math.Abs(p-q) <= 1e-12) {
			t.Fatalf("Pearson %v and scaled %v", p, q)
		}
		if p, q := spearman(x, y), spearman(cubed, y); p != q {
			t.Fatalf("Spearman %v and of cubes %v", p, q)
		}
	})
}

// TestConfusion compares with scikit-learn's confusion_matrix and
// precision_recall_fscore_support(zero_division=0) for these rows.
func TestConfusion(t *testing.T) {
	spec := Spec{Labels: []string{"a", "b", "c", "d"}}
	labels := []float32{0, 0, 0, 1, 1, 2}
	logits := []float32{2, 1, 0, 0, 0, 1, 0, 0, 3, 1, 2, 0, 0, 1, 0, 0, 0, 5, 2, 0, 0, 0, 0, 1}
	counts, classes := Confusion(spec, logits, labels)
	if want := [][]int{{2, 1, 0, 0}, {0, 2, 0, 0}, {0, 0, 0, 1}, {0, 0, 0, 0}}; !reflect.DeepEqual(counts, want) {
		t.Errorf("got %v, expected %v", counts, want)
	}
	want := []ClassScore{{"a", 3, 1, 2. / 3, 0.8}, {"b", 2, 2. / 3, 1, 0.8}, {"c", 1, 0, 0, 0}, {"d", 0, 0, 0, 0}}
	if !reflect.DeepEqual(classes, want) {
		t.Errorf("got %v, expected %v", classes, want)
	}
}
