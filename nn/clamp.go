package nn

type clamp struct {
	x      *Tensor
	limit  float32
	inside []float32 // 1 where x was within the limit, else 0
}

// Clamp bounds x to ±limit, in place, before anything reads it: OLMoE's queries, keys
// and values. What was beyond gets no gradient.
func (t *Tape) Clamp(x *Tensor, limit float32) {
	op := t.clamps.next()
	*op = clamp{x: x, limit: limit}
	if t.Train && !x.noGrad {
		op.inside = t.floats(len(x.Data))
	}
	t.Pool.Run(chunks(len(x.Data)), (*clampForward)(op))
	t.record(op)
}

type clampForward clamp

func (o *clampForward) Do(i, _ int) {
	from, to := chunkOf(i, len(o.x.Data))
	for j := from; j < to; j++ {
		v := o.x.Data[j]
		bounded := min(max(v, -o.limit), o.limit)
		o.x.Data[j] = bounded
		if o.inside != nil {
			o.inside[j] = 1
			if v != bounded {
				o.inside[j] = 0
			}
		}
	}
}

func (o *clamp) backward(t *Tape) {
	if o.x.Grad != nil && o.inside != nil {
		t.multiply = multiply{o.x.Grad, o.inside}
		t.Pool.Run(chunks(len(o.x.Grad)), &t.multiply)
	}
}
