package nn

import (
	"math"

	"mlpfusion/kernel"
)

// heldLogits is the number of logits VocabularyLoss holds at a time: enough rows
// that reading the vocabulary's matrix costs less than the products, whatever
// the batch.
var heldLogits = 24 << 20

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
	work    [][]float32 // of each worker: the derivatives of the cap, the teacher's probabilities
	teacher *VocabularyTeacher
	theirs  []float32  // the teacher's logits of the same rows
	idle    *[]float32 // as arena's
}

// VocabularyTeacher is what DistillVocabulary learns from: another model's last states
// of the same rows, its head, and how its predictions share in the loss, see Distill.
type VocabularyTeacher struct {
	X              *Tensor
	W              *Weight
	Scale, Softcap float32
	Weight         float64 // of the teacher's loss, 0 … 1
	Temperature    float64
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
	return t.vocabularyLoss(kind, x, w, scale, softcap, targets, nil)
}

// DistillVocabulary is VocabularyLoss with CrossEntropy and a teacher of the same
// vocabulary: (1 − weight) times the loss of the targets and weight times
// temperature² · KL(softmax(teacher's logits/temperature) ‖ softmax(logits/temperature)),
// the mean over rows.
func (t *Tape) DistillVocabulary(x *Tensor, w *Weight, scale, softcap float32, targets []int32, teacher *VocabularyTeacher) float64 {
	if teacher.X.Rows != x.Rows || teacher.W.Rows != w.Rows {
		panic("nn: DistillVocabulary from a teacher of other rows or words")
	}
	return t.vocabularyLoss(CrossEntropy, x, w, scale, softcap, targets, teacher)
}

func (t *Tape) vocabularyLoss(kind Loss, x *Tensor, w *Weight, scale, softcap float32, targets []int32, teacher *VocabularyTeacher) float64 {
	words, hidden := w.Rows, w.Cols
	held := max(1, min(x.Rows, heldLogits/words))
	v := &t.vocabulary
	if len(v.logits) < held*words {
		v.logits = v.floats(held * words)
	}
	for len(v.losses) < held {
		v.losses = append(v.losses, 0)
	}
	v.words, v.scale, v.softcap, v.train, v.teacher = words, scale, softcap, t.Train, teacher
	if softcap > 0 || teacher != nil {
		t.workspace(2 * words)
		v.work = t.work
	}
	if teacher != nil && len(v.theirs) < held*words {
		v.theirs = v.floats(held * words)
	}
	share := 1.0
	v.factor = -scale
	if kind == CrossEntropy {
		share = -1 / float64(x.Rows)
		v.factor = scale / float32(x.Rows)
	}
	v.factor *= float32(t.share())
	var dx []float32
	var add bool
	if t.Train && !x.noGrad {
		dx, add = t.gradOf(x)
	}
	var sum float64
	for from := 0; from < x.Rows; from += held {
		n := min(held, x.Rows-from)
		v.targets = targets[from : from+n]
		rows := kernel.Mat{Data: x.Data[from*hidden:], Stride: hidden}
		matrix := w.mat()
		logits := kernel.Mat{Data: v.logits, Stride: words}
		t.Pool.Gemm(t.Prec, n, words, hidden, rows, transposed(matrix), v.logits, words, kernel.Epilogue{})
		if teacher != nil {
			size := teacher.W.Cols
			t.Pool.Gemm(t.Prec, n, words, size, kernel.Mat{Data: teacher.X.Data[from*size:], Stride: size},
				transposed(teacher.W.mat()), v.theirs, words, kernel.Epilogue{})
		}
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
	v.targets, v.teacher = nil, nil
	return share * sum
}

func (v *vocabularyLoss) floats(n int) []float32 {
	if v.idle != nil {
		return share(v.idle, n)
	}
	return make([]float32, n)
}

func (v *vocabularyLoss) Do(i, w int) {
	row, target, scale := v.logits[i*v.words:(i+1)*v.words], v.targets[i], v.scale
	var deriv, p, q []float32 // the derivatives of the cap, softened exponentials, the teacher's probabilities
	var zp, soft float64
	if v.softcap > 0 {
		if v.train {
			deriv = v.work[w][:v.words]
		}
		kernel.Scale(row, scale)
		softcap(row, deriv, v.softcap)
		scale = 1
	}
	if v.teacher != nil {
		p, q = v.theirs[i*v.words:(i+1)*v.words], v.work[w][v.words:2*v.words]
		zp, soft = v.soften(row, scale, p, q)
	}
	logit := float64(scale) * float64(row[target])
	top := kernel.MaxScaled(row, scale)
	z := kernel.ExpSum(row, scale, top)
	v.losses[i] = math.Log(float64(z)) + float64(top) - logit
	hard := v.factor
	if v.teacher != nil {
		weight, temperature := v.teacher.Weight, v.teacher.Temperature
		v.losses[i] = (1-weight)*v.losses[i] + weight*temperature*temperature*soft
		hard *= float32(1 - weight)
	}
	if v.train {
		kernel.Scale(row, hard/z)
		row[target] -= hard
		if v.teacher != nil {
			share := v.factor * float32(v.teacher.Weight*v.teacher.Temperature)
			kernel.Axpy(share/float32(zp), p, row)
			kernel.Axpy(-share, q, row)
		}
		if deriv != nil {
			kernel.Mul(row, deriv)
		}
	}
}

// soften returns the divergence of a row's predictions from the teacher's, both at the
// teacher's temperature. q becomes the teacher's probabilities, and p, its logits,
// zp times the row's.
func (v *vocabularyLoss) soften(row []float32, scale float32, p, q []float32) (zp, divergence float64) {
	c := v.teacher
	theirs := c.Scale
	if c.Softcap > 0 {
		kernel.Scale(p, theirs)
		softcap(p, nil, c.Softcap)
		theirs = 1
	}
	theirs /= float32(c.Temperature)
	scale /= float32(c.Temperature)
	logs := func(x []float32, scale float32) (z, log float64) {
		top := kernel.MaxScaled(x, scale)
		z = float64(kernel.ExpSum(x, scale, top))
		return z, math.Log(z) + float64(top)
	}
	copy(q, p)
	zq, logq := logs(q, theirs)
	kernel.Scale(q, float32(1/zq))
	divergence = float64(theirs)*float64(kernel.Dot(q, p)) - float64(scale)*float64(kernel.Dot(q, row)) - logq
	copy(p, row)
	zp, logp := logs(p, scale)
	return zp, divergence + logp
}
