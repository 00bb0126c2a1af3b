package nn

type gather struct {
	x, y *Tensor
	rows []int32
}

// Rows returns the given rows of x in their order: (rows × width). The slice
// must stay as it is until the backward pass.
func (t *Tape) Rows(x *Tensor, rows []int32) *Tensor {
	y := t.New(len(rows), x.Cols)
	y.noGrad = x.noGrad
	for i, r := range rows {
		copy(y.Data[i*x.Cols:(i+1)*x.Cols], x.Data[int(r)*x.Cols:])
	}
	op := t.gathers.next()
	*op = gather{x, y, rows}
	t.record(op)
	return y
}

func (o *gather) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	dx, acc := t.gradOf(o.x)
	if !acc {
		clear(dx)
	}
	c := o.x.Cols
	for i, r := range o.rows {
		row := dx[int(r)*c:][:c]
		for j, g := range o.y.Grad[i*c : (i+1)*c] {
			row[j] += g
		}
	}
	t.release(o.y)
}
