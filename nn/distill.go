package nn

import "math"

// Distill is Loss with a teacher: (1 − weight) times the loss of the labels and
// weight times that of the teacher's logits (sequences × classes), which is, with
// s = logits/temperature and the teacher's likewise,
//
//	temperature² · mean over sequences of KL(softmax(teacher's s) ‖ softmax(s))
//
// (Hinton et al. 2015), and with SquaredError the mean squared difference. It
// sets the gradient of the logits while training.
func (t *Tape) Distill(kind Loss, logits, teacher *Tensor, labels []float32, weight, temperature float64) float64 {
	if logits.Rows != teacher.Rows || logits.Cols != teacher.Cols {
		panic("nn: Distill from logits of another shape")
	}
	sum := (1 - weight) * t.Loss(kind, logits, labels)
	n, c := logits.Rows, logits.Cols
	for i := range n {
		row, want := logits.Data[i*c:(i+1)*c], teacher.Data[i*c:(i+1)*c]
		var g []float32
		if t.Train {
			g = logits.Grad[i*c : (i+1)*c]
			for j := range g {
				g[j] *= float32(1 - weight)
			}
		}
		share := weight / float64(n)
		if kind == SquaredError {
			d := float64(row[0] - want[0])
			sum += share * d * d
			if g != nil {
				g[0] += float32(t.share() * 2 * share * d)
			}
			continue
		}
		own, theirs := logSum(row, temperature), logSum(want, temperature)
		for j := range row {
			q, p := float64(row[j])/temperature-own, float64(want[j])/temperature-theirs // logarithms
			sum += share * temperature * temperature * math.Exp(p) * (p - q)
			if g != nil {
				g[j] += float32(t.share() * share * temperature * (math.Exp(q) - math.Exp(p)))
			}
		}
	}
	return sum
}

// logSum returns log Σ exp(x/temperature).
func logSum(x []float32, temperature float64) float64 {
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	var z float64
	for _, v := range x {
		z += math.Exp(float64(v-top) / temperature)
	}
	return math.Log(z) + float64(top)/temperature
}
