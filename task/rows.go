package task

import (
	"fmt"
	"math"
	"slices"
)

// Rows are what a model said of each row of a data set and what was right, by which
// scores have intervals and models are compared on the same rows.
type Rows struct {
	Metric string `json:"metric"`
	// Said are predictions and Right the labels. With the metric perplexity a row is
	// a batch of texts, Said its negative log-likelihood and Right its tokens.
	Said  []float32 `json:"said"`
	Right []float32 `json:"right"`
}

// RowsOf are the predictions that logits make of a task's rows, for its main metric.
func RowsOf(spec Spec, logits, labels []float32) Rows {
	return Rows{spec.Main, predictions(spec, logits), labels}
}

// Value is the metric over all rows.
func (r Rows) Value() float64 { return r.valueOf(func(int) bool { return true }) }

// valueOf is the metric over some rows.
func (r Rows) valueOf(keep func(i int) bool) float64 {
	var said, right []float32
	for i := range r.Said {
		if keep(i) {
			said, right = append(said, r.Said[i]), append(right, r.Right[i])
		}
	}
	if r.Metric != Perplexity {
		return metrics[r.Metric](said, right)
	}
	var loss, tokens float64
	for i := range said {
		loss += float64(said[i])
		tokens += float64(right[i])
	}
	return math.Exp(loss / tokens)
}

// Majority is the metric of saying the most frequent label of every row; false for
// metrics that are not of classes.
func (r Rows) Majority() (float64, bool) {
	if r.Metric != Accuracy && r.Metric != F1 && r.Metric != Matthews {
		return 0, false
	}
	counts := map[float32]int{}
	most := r.Right[0]
	for _, label := range r.Right {
		counts[label]++
		if n := counts[label]; n > counts[most] || n == counts[most] && label < most {
			most = label
		}
	}
	return metrics[r.Metric](slices.Repeat([]float32{most}, len(r.Right)), r.Right), true
}

// normal is the quantile of a 95 % interval, and student's those of Student's
// distribution by degrees of freedom.
const normal = 1.960

var student = []float64{0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228}

// Interval is the value's 95 % confidence interval over the choice of rows: of
// accuracy Wilson's, else by the jackknife.
func (r Rows) Interval() (low, high float64) {
	p, n := r.Value(), float64(len(r.Said))
	if r.Metric == Accuracy {
		const z = normal
		half := z * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
		return max(0, (p+z*z/(2*n)-half)/(1+z*z/n)), min(1, (p+z*z/(2*n)+half)/(1+z*z/n))
	}
	half := normal * math.Sqrt(jackknife(len(r.Said), r.valueOf))
	return p - half, p + half
}

// Difference is how much better or worse a model scores than another.
type Difference struct {
	Mean float64 `json:"mean"` // the first model's value less the second's
	Half float64 `json:"half"` // of its 95 % confidence interval
}

// Clear tells that the interval leaves out zero: the difference is more than noise.
func (d Difference) Clear() bool { return math.Abs(d.Mean) > d.Half }

// Compare is the difference of two models, each trained with one or several seeds,
// on the same rows: a[i] and b[i] have one seed. The interval counts two sources of
// chance, rows and seeds, with one seed the rows alone. Of accuracy the rows' variance is that of Agresti and Min
// (2005), which is not zero where models agree on all rows, else the jackknife's;
// the seeds' enters by Student's distribution.
func Compare(a, b []Rows) (Difference, error) {
	if len(a) == 0 || len(a) != len(b) {
		return Difference{}, fmt.Errorf("comparison: expected as many runs of both models, found %d and %d", len(a), len(b))
	}
	for i := range a {
		if a[i].Metric != b[i].Metric || len(a[i].Said) == 0 || !slices.Equal(a[i].Right, a[0].Right) || !slices.Equal(b[i].Right, a[0].Right) {
			return Difference{}, fmt.Errorf("comparison: expected the same rows and metric, found others")
		}
	}
	seeds, n := float64(len(a)), len(a[0].Said)
	var d Difference
	each := make([]float64, len(a))
	for i := range a {
		each[i] = a[i].Value() - b[i].Value()
		d.Mean += each[i] / seeds
	}
	var rows, among float64
	if a[0].Metric == Accuracy {
		rows = agreement(a, b)
	} else {
		rows = jackknife(n, func(keep func(int) bool) (mean float64) {
			for i := range a {
				mean += (a[i].valueOf(keep) - b[i].valueOf(keep)) / seeds
			}
			return mean
		})
	}
	for _, v := range each {
		among += (v - d.Mean) * (v - d.Mean) / seeds
	}
	t := 0.0
	if len(a) > 1 {
		among /= seeds - 1
		t = 2
		if len(a)-1 < len(student) {
			t = student[len(a)-1]
		}
	}
	d.Half = math.Sqrt(normal*normal*rows + t*t*among)
	return d, nil
}

// agreement is the variance of the mean difference of accuracies over the rows, with
// two rows added on which each model is right once.
func agreement(a, b []Rows) float64 {
	var sum, squares float64
	for i := range a[0].Said {
		var d float64
		for s := range a {
			if a[s].Said[i] == a[s].Right[i] {
				d++
			}
			if b[s].Said[i] == b[s].Right[i] {
				d--
			}
		}
		d /= float64(len(a))
		sum += d
		squares += d * d
	}
	n := float64(len(a[0].Said) + 2)
	return (squares + 1 - sum*sum/n) / (n * n)
}

// jackknife is the variance of a statistic of n rows: it is computed again with each
// of up to 200 groups of rows left out.
func jackknife(n int, of func(keep func(i int) bool) float64) float64 {
	groups := min(n, 200)
	values := make([]float64, groups)
	var mean, sum float64
	for g := range groups {
		values[g] = of(func(i int) bool { return i%groups != g })
		mean += values[g] / float64(groups)
	}
	for _, v := range values {
		sum += (v - mean) * (v - mean)
	}
	return sum * float64(groups-1) / float64(groups)
}
