package task

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Metric is one number of a score, in [0, 1] or for correlations [-1, 1]; more
// is better, unless LowerIsBetter.
type Metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Score computes the task's metrics, in the order of spec.Metrics. logits is row
// major, len(labels) rows of spec.Classes() columns; the largest of a row is the
// prediction (the first of equals), and in regression the number itself. Logits
// that are not numbers, an empty data set and sizes that disagree are errors.
//
// Where a metric is undefined it is 0, as if nothing had been learned, so that
// it never wins a comparison of checkpoints: F1 without a true positive and
// Matthews' correlation of constant predictions (both as scikit-learn), and
// Pearson's and Spearman's of a constant side (SciPy says NaN).
func Score(spec Spec, logits, labels []float32) ([]Metric, error) {
	n, k := len(labels), spec.Classes()
	if n == 0 {
		return nil, fmt.Errorf("score of %s: expected at least one example, found none", spec.Name)
	}
	if len(logits) != n*k {
		return nil, fmt.Errorf("score of %s: expected %d × %d logits, found %d", spec.Name, n, k, len(logits))
	}
	for i, v := range logits {
		if v != v || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("score of %s: expected finite logits, found %v for example %d", spec.Name, v, i/k)
		}
	}
	said := predictions(spec, logits)
	out := make([]Metric, len(spec.Metrics))
	for i, name := range spec.Metrics {
		if name == Loss {
			out[i] = Metric{Loss, meanLoss(logits, labels, k)}
			continue
		}
		f, ok := metrics[name]
		if !ok {
			return nil, fmt.Errorf("score of %s: expected a known metric, found %q", spec.Name, name)
		}
		out[i] = Metric{name, f(said, labels)}
	}
	return out, nil
}

// meanLoss is what training makes smaller: the mean cross-entropy over rows, of one output
// the mean squared error.
func meanLoss(logits, labels []float32, k int) (mean float64) {
	for i, label := range labels {
		row := logits[i*k : (i+1)*k]
		if k == 1 {
			d := float64(row[0] - label)
			mean += d * d / float64(len(labels))
			continue
		}
		top := float64(slices.Max(row))
		var z float64
		for _, v := range row {
			z += math.Exp(float64(v) - top)
		}
		mean += (top + math.Log(z) - float64(row[int(label)])) / float64(len(labels))
	}
	return mean
}

// ClassScore is how one class fares: the rows that have it, and precision, recall
// and F1, 0 where they are undefined.
type ClassScore struct {
	Label     string  `json:"label"`
	Rows      int     `json:"rows"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
}

// Confusion counts, for a task with classes, the rows by their class and the one
// predicted, [class][predicted], and scores each class. logits are as Score's.
func Confusion(spec Spec, logits, labels []float32) (counts [][]int, classes []ClassScore) {
	k := spec.Classes()
	counts, classes = make([][]int, k), make([]ClassScore, k)
	for c := range counts {
		counts[c] = make([]int, k)
	}
	for i, said := range predictions(spec, logits) {
		counts[int(labels[i])][int(said)]++
	}
	share := func(part, whole int) float64 { return float64(part) / float64(max(whole, 1)) }
	for c := range classes {
		predicted, rows := 0, 0
		for other := range counts {
			predicted += counts[other][c]
			rows += counts[c][other]
		}
		right := counts[c][c]
		classes[c] = ClassScore{spec.Labels[c], rows, share(right, predicted), share(right, rows), share(2*right, predicted+rows)}
	}
	return counts, classes
}

// predictions are the classes with the largest logits, or the numbers of a regression.
func predictions(spec Spec, logits []float32) []float32 {
	if spec.Regression {
		return logits
	}
	k := spec.Classes()
	said := make([]float32, len(logits)/k)
	for i := range said {
		row := logits[i*k : (i+1)*k]
		best := 0
		for j, v := range row {
			if v > row[best] {
				best = j
			}
		}
		said[i] = float32(best)
	}
	return said
}

var metrics = map[string]func(predictions, labels []float32) float64{
	Accuracy: accuracy, F1: f1, Matthews: matthews, Pearson: pearson, Spearman: spearman,
}

// accuracy is the share of equal entries.
func accuracy(p, y []float32) float64 {
	same := 0
	for i := range p {
		if p[i] == y[i] {
			same++
		}
	}
	return float64(same) / float64(len(p))
}

// f1 is the harmonic mean of precision and recall of class 1.
func f1(p, y []float32) float64 {
	both, either := 0, 0
	for i := range p {
		if p[i] == 1 {
			either++
		}
		if y[i] == 1 {
			either++
		}
		if p[i] == 1 && y[i] == 1 {
			both++
		}
	}
	if both == 0 {
		return 0
	}
	return 2 * float64(both) / float64(either)
}

// matthews is Matthews' correlation coefficient for any number of classes: the
// covariance of the class indicators over their standard deviations (Gorodkin
// 2004).
func matthews(p, y []float32) float64 {
	var same float64
	predicted, actual := map[float32]float64{}, map[float32]float64{}
	for i := range p {
		if p[i] == y[i] {
			same++
		}
		predicted[p[i]]++
		actual[y[i]]++
	}
	n := float64(len(p))
	cov, varP, varY := same*n, n*n, n*n
	for c, count := range predicted {
		cov -= count * actual[c]
		varP -= count * count
	}
	for _, count := range actual {
		varY -= count * count
	}
	if varP == 0 || varY == 0 {
		return 0
	}
	return cov / math.Sqrt(varP*varY)
}

// pearson is the correlation of two samples.
func pearson(p, y []float32) float64 {
	x, z := make([]float64, len(p)), make([]float64, len(y))
	for i := range p {
		x[i], z[i] = float64(p[i]), float64(y[i])
	}
	return correlation(x, z)
}

func correlation(x, y []float64) float64 {
	if slices.Min(x) == slices.Max(x) || slices.Min(y) == slices.Max(y) {
		return 0
	}
	var mx, my float64
	for i := range x {
		mx += x[i]
		my += y[i]
	}
	mx /= float64(len(x))
	my /= float64(len(y))
	var xy, xx, yy float64
	for i := range x {
		dx, dy := x[i]-mx, y[i]-my
		xy += dx * dy
		xx += dx * dx
		yy += dy * dy
	}
	return max(-1, min(1, xy/math.Sqrt(xx)/math.Sqrt(yy)))
}

// spearman is the correlation of the ranks.
func spearman(p, y []float32) float64 { return correlation(ranks(p), ranks(y)) }

// ranks counts from 1; equal values share the mean of their ranks.
func ranks(x []float32) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	r := make([]float64, len(x))
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && x[order[to]] == x[order[from]] {
			to++
		}
		for _, i := range order[from:to] {
			r[i] = float64(from+to+1) / 2
		}
		from = to
	}
	return r
}
