package kernel

import "math"

var (
	adamStep        = portable(adamStepPortable)
	adamStepColumns = portable(adamStepColumnsPortable)
)

// AdamW holds one step's constants; see Step.
type AdamW struct {
	LR          float32 // learning rate times the schedule
	Beta1       float32
	Beta2       float32
	Eps         float32
	Decay       float32 // decoupled: w -= LR·Decay·w
	Correction1 float32 // 1 − Beta1^t
	Correction2 float32 // 1 − Beta2^t
	GradScale   float32 // the clipping factor, multiplied into every gradient
}

// Step applies one AdamW update in place, as torch.optim.AdamW defines it:
//
//	w −= LR·Decay·w
//	g = GradScale·grad;  m = β1·m + (1−β1)·g;  v = β2·v + (1−β2)·g²
//	w −= rate·LR/Correction1 · m / (sqrt(v/Correction2) + Eps)
//
// rate multiplies the step but not the decay. All slices have one length.
func (o *AdamW) Step(w, grad, m, v []float32, rate float32) {
	n := len(grad)
	adamStep.use(o.constants(rate), w[:n], grad, m[:n], v[:n])
}

func adamStepPortable(c adamConstants, w, grad, m, v []float32) {
	for i, g := range grad {
		w[i] = adamElement(&c, w[i], g, &m[i], &v[i], 1)
	}
}

// StepColumns is Step with a rate for each element.
func (o *AdamW) StepColumns(w, grad, m, v, rates []float32) {
	n := len(grad)
	adamStepColumns.use(o.constants(1), w[:n], grad, m[:n], v[:n], rates[:n])
}

func adamStepColumnsPortable(c adamConstants, w, grad, m, v, rates []float32) {
	for i, g := range grad {
		w[i] = adamElement(&c, w[i], g, &m[i], &v[i], rates[i])
	}
}

// adamConstants are the factors of Step's formulas, with both sides of the last
// fraction multiplied by sqrt(Correction2):
//
//	GradScale, β1, 1−β1, β2, 1−β2, 1−LR·Decay,
//	rate·LR/Correction1·sqrt(Correction2), Eps·sqrt(Correction2)
type adamConstants = [8]float32

func (o *AdamW) constants(rate float32) adamConstants {
	root := math.Sqrt(float64(o.Correction2))
	return adamConstants{
		o.GradScale, o.Beta1, 1 - o.Beta1, o.Beta2, 1 - o.Beta2,
		float32(1 - float64(o.LR)*float64(o.Decay)),
		float32(float64(rate) * float64(o.LR) / float64(o.Correction1) * root),
		float32(float64(o.Eps) * root),
	}
}

// adamElement updates one element's m and v and returns its new w.
func adamElement(c *adamConstants, w, g float32, m, v *float32, rate float32) float32 {
	g *= c[0]
	*m = c[1]**m + c[2]*g
	*v = c[3]**v + c[4]*(g*g)
	return c[5]*w - c[6]**m*rate/(float32(math.Sqrt(float64(*v)))+c[7])
}
