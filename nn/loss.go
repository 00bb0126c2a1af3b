package nn

import "math"

// Loss says what is derived from the logits.
type Loss int

const (
	// CrossEntropy is the mean over sequences of −log softmax(logits)[label].
	CrossEntropy Loss = iota
	// SquaredError is the mean over sequences of (logit − label)².
	SquaredError
	// KernelFunction is the function whose gradients make the neural tangent
	// kernel (docs/method.md): the sum over sequences of softmax(logits)[0], of the
	// logit itself when there is one, and of a language model's log-likelihood
	// of the target.
	KernelFunction
)

// Loss returns the loss of the logits (sequences × classes) and, while
// training, sets their gradient. Labels are class indices, or targets for
// SquaredError; KernelFunction ignores them.
func (t *Tape) Loss(kind Loss, logits *Tensor, labels []float32) float64 {
	var grad []float32
	if t.Train {
		grad, _ = t.gradOf(logits)
	}
	n, c := logits.Rows, logits.Cols
	share := t.share()
	var sum float64
	for i := range n {
		row := logits.Data[i*c : (i+1)*c]
		var g []float32
		if grad != nil {
			g = grad[i*c : (i+1)*c]
		}
		switch {
		case kind == SquaredError:
			d := float64(row[0] - labels[i])
			sum += d * d / float64(n)
			if g != nil {
				g[0] = float32(share * 2 * d / float64(n))
			}
		case kind == KernelFunction && c == 1:
			sum += float64(row[0])
			if g != nil {
				g[0] = float32(share)
			}
		default:
			sum += softmaxLoss(kind, row, g, labels, i, n, share)
		}
	}
	return sum
}

func softmaxLoss(kind Loss, row, g []float32, labels []float32, i, n int, share float64) float64 {
	top := row[0]
	for _, v := range row {
		top = max(top, v)
	}
	var z float64
	for _, v := range row {
		z += math.Exp(float64(v - top))
	}
	prob := func(j int) float64 { return math.Exp(float64(row[j]-top)) / z }
	if kind == KernelFunction {
		p0 := prob(0)
		for j := range g {
			d := -p0 * prob(j)
			if j == 0 {
				d += p0
			}
			g[j] = float32(share * d)
		}
		return p0
	}
	label := int(labels[i])
	for j := range g {
		d := prob(j)
		if j == label {
			d--
		}
		g[j] = float32(share * d / float64(n))
	}
	return (math.Log(z) - float64(row[label]-top)) / float64(n)
}
