package nn

type gather struct {
	x, y    *Tensor
	offsets []int32
}

// First returns the first row of each sequence, offsets[i] being where sequence
// i begins and the last offset their end: (sequences × width).
func (t *Tape) First(x *Tensor, offsets []int32) *Tensor {
	n := len(offsets) - 1
	y := t.New(n, x.Cols)
	y.constant = x.constant
	for i := range n {
		copy(y.Data[i*x.Cols:(i+1)*x.Cols], x.Data[int(offsets[i])*x.Cols:])
	}
	op := t.gathers.next()
	*op = gather{x, y, offsets}
	t.record(op)
	return y
}

func (o *gather) backward(t *Tape) {
	if o.y.Grad == nil || o.y.constant {
		return
	}
	dx, acc := t.gradOf(o.x)
	if !acc {
		clear(dx)
	}
	c := o.x.Cols
	for i := range o.y.Rows {
		row := dx[int(o.offsets[i])*c:][:c]
		for j, g := range o.y.Grad[i*c : (i+1)*c] {
			row[j] += g
		}
	}
	t.release(o.y)
}
