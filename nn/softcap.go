package nn

import "mlpfusion/kernel"

type capped struct {
	data, deriv []float32
	cap         float32
}

// Softcap replaces x by cap·tanh(x/cap), in place, before anything reads it: Gemma 2's
// logits. x is the output of a Linear without activation.
func (t *Tape) Softcap(x *Tensor, cap float32) {
	if t.Train && !x.noGrad {
		x.Deriv = t.floats(len(x.Data))
	}
	t.capped = capped{x.Data, x.Deriv, cap}
	t.Pool.Run(chunks(len(x.Data)), &t.capped)
}

func (c *capped) Do(i, _ int) {
	from, to := chunkOf(i, len(c.data))
	var deriv []float32
	if c.deriv != nil {
		deriv = c.deriv[from:to]
	}
	softcap(c.data[from:to], deriv, c.cap)
}

// softcap replaces v by cap·tanh(v/cap) and, unless deriv is nil, writes the
// derivative.
func softcap(v, deriv []float32, cap float32) {
	kernel.Scale(v, 1/cap)
	kernel.Activate(kernel.Tanh, v, deriv, nil)
	kernel.Scale(v, cap)
}
