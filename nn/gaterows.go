package nn

import (
	"math"

	"mlpfusion/kernel"
)

type gateRows struct {
	x, gate, y *Tensor
	dx, dgate  []float32
	addX, addG bool
}

// GateRows returns each row of x times the sigmoid of its row of gate (rows × 1): the
// shared expert of Qwen 2's mixtures.
func (t *Tape) GateRows(x, gate *Tensor) *Tensor {
	y := t.New(x.Rows, x.Cols)
	y.noGrad = x.noGrad && gate.noGrad
	op := t.gateRows.next()
	*op = gateRows{x: x, gate: gate, y: y}
	t.Pool.Run(rowChunks(x.Rows), (*gateRowsForward)(op))
	t.record(op)
	return y
}

func sigmoid(v float32) float32 { return float32(1 / (1 + math.Exp(-float64(v)))) }

type gateRowsForward gateRows

func (o *gateRowsForward) Do(i, _ int) {
	c := o.x.Cols
	for r := i * rowChunk; r < min(o.x.Rows, (i+1)*rowChunk); r++ {
		y := o.y.Data[r*c : (r+1)*c]
		copy(y, o.x.Data[r*c:(r+1)*c])
		kernel.Scale(y, sigmoid(o.gate.Data[r]))
	}
}

func (o *gateRows) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	if !o.x.noGrad {
		o.dx, o.addX = t.gradOf(o.x)
	}
	if !o.gate.noGrad {
		o.dgate, o.addG = t.gradOf(o.gate)
	}
	t.Pool.Run(rowChunks(o.x.Rows), (*gateRowsBackward)(o))
	t.release(o.y)
}

type gateRowsBackward gateRows

func (o *gateRowsBackward) Do(i, _ int) {
	c := o.x.Cols
	for r := i * rowChunk; r < min(o.x.Rows, (i+1)*rowChunk); r++ {
		dy, s := o.y.Grad[r*c:(r+1)*c], sigmoid(o.gate.Data[r])
		if o.dgate != nil {
			d := s * (1 - s) * kernel.Dot(dy, o.x.Data[r*c:(r+1)*c])
			if o.addG {
				d += o.dgate[r]
			}
			o.dgate[r] = d
		}
		if o.dx == nil {
			continue
		}
		dx := o.dx[r*c : (r+1)*c]
		if !o.addX {
			clear(dx)
		}
		kernel.Axpy(s, dy, dx)
	}
}
