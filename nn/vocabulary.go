package nn

import (
	"math"

	"mlpfusion/kernel"
)

// heldLogits is the number of logits VocabularyLoss holds at a time: enough rows
// that reading the vocabulary's matrix costs less than the products, whatever
// the batch.
const heldLogits = 8 << 20

// vocabularyLoss is the work on the rows whose logits are held.
type vocabularyLoss struct {
	logits  []float32 // rows × vocabulary; then their gradient
	targets []int32
	losses  []float64 // −log p of each target
	words   int
	scale   float32
	softcap float32
	factor  float32 // of the gradient with respect to scale·logits, times scale
	train   bool
	work    [][]float32 // of each worker: the derivatives of the cap
}

// VocabularyLoss returns the loss of predicting targets[i], an index of w's
// rows, from row i of x by the logits scale·x·Wᵀ: with CrossEntropy the mean
// over targets of −log softmax(logits)[target], with KernelFunction the sum of
// the log-likelihoods. While training it sets x's gradient and adds to W's.
//
// x is (rows × hidden), w (vocabulary × hidden). The logits of a few rows are
// computed at a time and turned into their gradient in place, so the memory does
// not grow with the batch.
func (t *Tape) VocabularyLoss(kind Loss, x *Tensor, w *Weight, scale, softcap float32, targets []int32) float64 {
	words, hidden := w.Rows, w.Cols
	held := max(1, min(x.Rows, heldLogits/words))
	v := &t.vocabulary
	if len(v.logits) < held*words {
		v.logits = make([]float32, held*words)
	}
	for len(v.losses) < held {
		v.losses = append(v.losses, 0)
	}
	v.words, v.scale, v.softcap, v.train = words, scale, softcap, t.Train
	if softcap > 0 {
		t.workspace(words)
		v.work = t.work
	}
	share := 1.0
	v.factor = -scale
	if kind == CrossEntropy {
		share = -1 / float64(x.Rows)
		v.factor = scale / float32(x.Rows)
	}
	var dx []float32
	var add bool
	if t.Train && !x.noGrad {
		dx, add = t.gradOf(x)
	}
	values := t.values(w)
	var sum float64
	for from := 0; from < x.Rows; from += held {
		n := min(held, x.Rows-from)
		v.targets = targets[from : from+n]
		rows := kernel.Mat{Data: x.Data[from*hidden:], Stride: hidden}
		matrix := kernel.Mat{Data: values, Stride: hidden}
		logits := kernel.Mat{Data: v.logits, Stride: words}
		t.Pool.Gemm(t.Prec, n, words, hidden, rows, transposed(matrix), v.logits, words, kernel.Epilogue{})
		t.Pool.Run(n, v)
		for _, l := range v.losses[:n] {
			sum -= l
		}
		if dx != nil {
			t.Pool.Gemm(t.Prec, n, hidden, words, logits, matrix, dx[from*hidden:], hidden, kernel.Epilogue{Accumulate: add})
		}
		if t.Train && !w.Frozen {
			grad, add := w.gradient()
			t.Pool.Gemm(t.Prec, words, hidden, n, transposed(logits), rows, grad, hidden, kernel.Epilogue{Accumulate: add})
		}
	}
	t.doneValues()
	v.targets = nil
	return share * sum
}

func (v *vocabularyLoss) Do(i, w int) {
	row, target, scale := v.logits[i*v.words:(i+1)*v.words], v.targets[i], v.scale
	var deriv []float32
	if v.softcap > 0 {
		if v.train {
			deriv = v.work[w][:v.words]
		}
		kernel.Scale(row, scale)
		softcap(row, deriv, v.softcap)
		scale = 1
	}
	logit := float64(scale) * float64(row[target])
	top := kernel.MaxScaled(row, scale)
	z := kernel.ExpSum(row, scale, top)
	v.losses[i] = math.Log(float64(z)) + float64(top) - logit
	if v.train {
		kernel.Scale(row, v.factor/z)
		row[target] -= v.factor
		if deriv != nil {
			kernel.Mul(row, deriv)
		}
	}
}
