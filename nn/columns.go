package nn

import "mlpfusion/kernel"

// Columns are the columns of a tensor that become part of each head of another: of head h
// those from Start + h·Stride on, at place At of the head. A Stride of 0 gives all heads
// the same.
type Columns struct {
	X                        *Tensor
	Start, Stride, Width, At int
}

type heads struct {
	y          *Tensor
	heads, dim int
	parts      []Columns
	dx         [][]float32
	add        []bool
}

// Heads returns this many heads of width dim, side by side, made of columns of other
// tensors with as many rows: keys and values of DeepSeek's attention. What no part
// fills is zero.
func (t *Tape) Heads(count, dim int, parts ...Columns) *Tensor {
	y := t.New(parts[0].X.Rows, count*dim)
	y.noGrad = true
	for _, p := range parts {
		y.noGrad = y.noGrad && p.X.noGrad
	}
	op := t.headsOf.next()
	op.y, op.heads, op.dim, op.parts = y, count, dim, append(op.parts[:0], parts...)
	t.Pool.Run(rowChunks(y.Rows), (*headsForward)(op))
	t.record(op)
	return y
}

type headsForward heads

func (o *headsForward) Do(i, _ int) {
	for r := i * rowChunk; r < min(o.y.Rows, (i+1)*rowChunk); r++ {
		y := o.y.Data[r*o.y.Cols : (r+1)*o.y.Cols]
		clear(y)
		for _, p := range o.parts {
			x := p.X.Data[r*p.X.Cols+p.Start:]
			for h := range o.heads {
				copy(y[h*o.dim+p.At:][:p.Width], x[h*p.Stride:])
			}
		}
	}
}

func (o *heads) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	o.dx, o.add = o.dx[:0], o.add[:0]
	for _, p := range o.parts {
		var dx []float32
		var add bool
		if !p.X.noGrad {
			dx, add = t.gradOf(p.X)
		}
		o.dx, o.add = append(o.dx, dx), append(o.add, add)
	}
	t.Pool.Run(rowChunks(o.y.Rows), (*headsBackward)(o))
	t.release(o.y)
}

type headsBackward heads

func (o *headsBackward) Do(i, _ int) {
	for r := i * rowChunk; r < min(o.y.Rows, (i+1)*rowChunk); r++ {
		dy := o.y.Grad[r*o.y.Cols : (r+1)*o.y.Cols]
		for j, p := range o.parts {
			if o.dx[j] == nil {
				continue
			}
			dx := o.dx[j][r*p.X.Cols : (r+1)*p.X.Cols]
			if !o.add[j] {
				clear(dx)
			}
			for h := range o.heads {
				kernel.Add(dx[p.Start+h*p.Stride:][:p.Width], dy[h*o.dim+p.At:][:p.Width])
			}
		}
	}
}
