package nn

import (
	"math"
	"sync/atomic"
)

// Rope is rotary position embedding (arXiv 2104.09864): each pair of elements of a
// query or key is turned by an angle that grows with the token's position, so that
// their product depends on the distance between the two. It may be used by several
// tapes at once.
type Rope struct {
	frequencies []float32
	factor      float32
	interleaved bool
	table       atomic.Pointer[[]float32] // of each position: the cosine of every pair, then the sines
}

// NewRope returns a rotation that turns pair i of a head by frequencies[i] radians a
// position and multiplies it by factor (YaRN's attention factor; mostly 1). Of n
// frequencies, pair i is elements i and n+i of the head, or 2i and 2i+1 if
// interleaved.
func NewRope(frequencies []float32, factor float32, interleaved bool) *Rope {
	return &Rope{frequencies: frequencies, factor: factor, interleaved: interleaved}
}

// Interleaved returns the same rotation with pair i at elements 2i and 2i+1.
func (r *Rope) Interleaved() *Rope { return NewRope(r.frequencies, r.factor, true) }

// upTo returns the table of positions below n at least. It at least doubles when it
// grows. Angles are rounded to float32 as transformers does.
func (r *Rope) upTo(n int) []float32 {
	pairs, have := len(r.frequencies), 0
	if t := r.table.Load(); t != nil {
		if len(*t) >= n*2*pairs {
			return *t
		}
		have = len(*t) / (2 * pairs)
	}
	t := make([]float32, max(n, 2*have)*2*pairs)
	for p := range len(t) / (2 * pairs) {
		row := t[p*2*pairs:]
		for i, f := range r.frequencies {
			sin, cos := math.Sincos(float64(float32(p) * f))
			row[i], row[pairs+i] = r.factor*float32(cos), r.factor*float32(sin)
		}
	}
	r.table.Store(&t)
	return t
}

type rotate struct {
	x          Heads
	heads, dim int
	rope       *Rope
	positions  []int32
	table      []float32
}

// Rotate turns, in place, the first elements of this many heads of x, each dim columns
// behind the one before, as many elements as the rope has frequencies for; the others
// stay. Row i of x stands at positions[i], which must stay as it is until the backward
// pass. x is the part of a projection that holds queries or keys, or both side by
// side; it is called before anything reads them.
func (t *Tape) Rotate(x Heads, heads, dim int, rope *Rope, positions []int32) {
	last := int32(0)
	for _, p := range positions {
		last = max(last, p)
	}
	op := t.rotates.next()
	*op = rotate{x: x, heads: heads, dim: dim, rope: rope, positions: positions, table: rope.upTo(int(last) + 1)}
	t.Pool.Run(rowChunks(len(positions)), (*rotateForward)(op))
	t.record(op)
}

type rotateForward rotate

func (o *rotateForward) Do(i, _ int) { (*rotate)(o).turn(o.x.X.Data, i, 1) }

// backward turns the gradient back: the rotation's transpose.
func (o *rotate) backward(t *Tape) {
	if o.x.X.Grad != nil && !o.x.X.noGrad {
		t.Pool.Run(rowChunks(len(o.positions)), (*rotateBackward)(o))
	}
}

type rotateBackward rotate

func (o *rotateBackward) Do(i, _ int) { (*rotate)(o).turn(o.x.X.Grad, i, -1) }

// turn turns a chunk of rows of data, forward or, with sign −1, back.
func (o *rotate) turn(data []float32, chunk int, sign float32) {
	n := len(o.rope.frequencies)
	for r := chunk * rowChunk; r < min(len(o.positions), (chunk+1)*rowChunk); r++ {
		at := int(o.positions[r]) * 2 * n
		cos, sin := o.table[at:at+n], o.table[at+n:at+2*n]
		for h := range o.heads {
			x := data[r*o.x.X.Cols+o.x.Start+h*o.dim:][:2*n]
			if o.rope.interleaved {
				for i, c := range cos {
					a, b, s := x[2*i], x[2*i+1], sign*sin[i]
					x[2*i], x[2*i+1] = a*c-b*s, b*c+a*s
				}
				continue
			}
			first, second := x[:n], x[n:2*n]
			for i, c := range cos {
				a, b, s := first[i], second[i], sign*sin[i]
				first[i], second[i] = a*c-b*s, b*c+a*s
			}
		}
	}
}
