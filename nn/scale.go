package nn

import "mlpfusion/kernel"

type scaled struct {
	x *Tensor
	a float32
}

// Scale multiplies x by a, in place, before anything reads it: Gemma's embeddings by
// √hidden, say.
func (t *Tape) Scale(x *Tensor, a float32) {
	op := t.scales.next()
	*op = scaled{x, a}
	t.Pool.Run(chunks(len(x.Data)), (*scaleForward)(op))
	t.record(op)
}

type scaleForward scaled

func (o *scaleForward) Do(i, _ int) {
	from, to := chunkOf(i, len(o.x.Data))
	kernel.Scale(o.x.Data[from:to], o.a)
}

func (o *scaled) backward(t *Tape) {
	if o.x.Grad != nil && !o.x.noGrad {
		t.Pool.Run(chunks(len(o.x.Grad)), (*scaleBackward)(o))
	}
}

type scaleBackward scaled

func (o *scaleBackward) Do(i, _ int) {
	from, to := chunkOf(i, len(o.x.Grad))
	kernel.Scale(o.x.Grad[from:to], o.a)
}
