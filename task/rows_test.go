package task

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
)

// TestWilson checks an interval that Newcombe (1998, method 3) prints to four digits.
func TestWilson(t *testing.T) {
	r := Rows{Metric: Accuracy, Said: make([]float32, 263), Right: slices.Repeat([]float32{1}, 263)}
	for i := range 81 {
		r.Said[i] = 1
	}
	low, high := r.Interval()
	golden.NearValue(t, "low", low, 0.2553, 5e-5)
	golden.NearValue(t, "high", high, 0.3662, 5e-5)
}

// TestMajority: the baseline is that of the most frequent label.
func TestMajority(t *testing.T) {
	labels := []float32{2, 0, 2, 1, 2, 0}
	if v, ok := (Rows{Metric: Accuracy, Right: labels}).Majority(); !ok || v != 0.5 {
		t.Errorf("accuracy %v, %v, want 0.5", v, ok)
	}
	if v, ok := (Rows{Metric: F1, Right: []float32{1, 1, 0}}).Majority(); !ok || v != 0.8 {
		t.Errorf("F1 %v, %v, want 0.8", v, ok)
	}
	if _, ok := (Rows{Metric: Pearson, Right: labels}).Majority(); ok {
		t.Error("a correlation has a majority")
	}
}

// TestCoverage draws data sets many times from a known truth: the 95 % intervals of
// a value and of paired differences hold it about as often as they say. Of 400
// draws, 95 % ± 3 standard deviations are 92 to 98 %; small samples of Student's or
// rounded counts may err on the safe side only.
func TestCoverage(t *testing.T) {
	const draws, n = 400, 120
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		metric string
		seeds  int
	}{{Accuracy, 1}, {Accuracy, 3}, {Pearson, 1}, {F1, 1}, {Perplexity, 1}} {
		covered := 0
		for range draws {
			a, b := make([]Rows, c.seeds), make([]Rows, c.seeds)
			right := make([]float32, n)
			for i := range right {
				switch c.metric {
				case Pearson:
					right[i] = float32(rng.NormFloat64())
				case Perplexity:
					right[i] = float32(10 + rng.IntN(5))
				default:
					right[i] = float32(rng.IntN(2))
				}
			}
			hard := make([]float64, n) // rows are harder or easier for both models
			for i := range hard {
				hard[i] = rng.Float64()
			}
			for s := range c.seeds {
				better := 0.0
				if c.seeds > 1 { // of one seed's luck the interval says nothing
					better = 0.02 * rng.NormFloat64()
				}
				for _, r := range []struct {
					to   *[]Rows
					luck float64
				}{{&a, better}, {&b, -better}} {
					said := make([]float32, n)
					for i := range said {
						switch c.metric {
						case Pearson:
							said[i] = right[i] + float32(hard[i]+rng.NormFloat64())
						case Perplexity:
							said[i] = right[i] * float32(2+hard[i]+0.1*rng.NormFloat64())
						default:
							said[i] = right[i]
							if rng.Float64() > 0.6+0.4*hard[i]+r.luck {
								said[i] = 1 - said[i]
							}
						}
					}
					(*r.to)[s] = Rows{c.metric, said, right}
				}
			}
			d, err := Compare(a, b) // of models that are as good as each other
			if err != nil {
				t.Fatal(err)
			}
			if !d.Clear() {
				covered++
			}
		}
		share := float64(covered) / draws
		t.Logf("%s, %d seeds: %.3f", c.metric, c.seeds, share)
		if !(share >= 0.92 && (share <= 0.985 || c.seeds > 1)) {
			t.Errorf("%s, %d seeds: intervals hold the truth in %.3f of the draws", c.metric, c.seeds, share)
		}
	}
}

// TestAgreeing: models that say the same differ by nothing, and how sure that is
// depends on the rows.
func TestAgreeing(t *testing.T) {
	few, many := Rows{Accuracy, make([]float32, 20), make([]float32, 20)}, Rows{Accuracy, make([]float32, 2000), make([]float32, 2000)}
	halves := [2]float64{}
	for i, r := range []Rows{few, many} {
		d, err := Compare([]Rows{r}, []Rows{r})
		if err != nil || d.Mean != 0 {
			t.Fatalf("difference %v, %v", d, err)
		}
		halves[i] = d.Half
	}
	if !(halves[0] > 0.05 && halves[1] < 0.001*math.Sqrt2) {
		t.Errorf("half intervals %v", halves)
	}
	if _, err := Compare([]Rows{few}, []Rows{many}); err == nil {
		t.Error("other rows are compared")
	}
}
