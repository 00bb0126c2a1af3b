package nn

type recompute struct {
	x, y    *Tensor
	f       func(*Tensor) *Tensor
	counter uint64 // of dropout, when f began
}

// Recompute returns f(x), the work of a layer on its input, and while training forgets
// all that f made but its result: the backward pass runs f again, on the same dropout
// masks, before it takes f's gradients (arXiv 1604.06174). So a model's memory grows
// with its layers by their inputs alone, for the price of one more forward pass. The
// result has x's shape. f must give the same each time.
func (t *Tape) Recompute(x *Tensor, f func(*Tensor) *Tensor) *Tensor {
	if !t.Train {
		return f(x)
	}
	y := t.New(x.Rows, x.Cols)
	op := &recompute{x: x, y: y, f: f, counter: t.counter}
	arena, recorded := t.arenas[0], len(t.ops)
	out := f(x)
	copy(y.Data, out.Data)
	y.noGrad = out.noGrad
	t.ops = t.ops[:recorded]
	t.arenas[0].returnTo(&arena)
	t.record(op)
	return y
}

// Again tells whether a layer is being run again by a backward pass.
func (t *Tape) Again() bool { return t.again }

// KeepLogits has RouterLosses find the logits of a routing whose layer Recompute runs
// again: in kept, of the same shape and made before that. When the layer is run again they
// get the gradient that RouterLosses left there.
func (t *Tape) KeepLogits(r *Routing, kept *Tensor) {
	if !t.again {
		copy(kept.Data, r.Logits.Data)
		kept.noGrad = r.Logits.noGrad
		r.Logits = kept
		return
	}
	if kept.Grad != nil {
		dl, _ := t.gradOf(r.Logits)
		copy(dl, kept.Grad)
		t.release(kept)
	}
}

func (o *recompute) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	arena, counter, recorded, again := t.arenas[0], t.counter, len(t.ops), t.again
	t.counter, t.again = o.counter, true
	out := o.f(o.x)
	t.again = again
	out.Grad = t.grads.get(len(o.y.Grad))
	copy(out.Grad, o.y.Grad)
	t.release(o.y)
	t.backwardTo(recorded)
	t.arenas[0].returnTo(&arena)
	t.counter = counter
}
