package nn

import (
	"math"

	"mlpfusion/kernel"
)

// Routing says which expert of a mixture each token goes to (Switch
// Transformers, arXiv 2101.03961, section 2.2). It lives until the tape's next
// Reset.
type Routing struct {
	Experts int
	Offsets []int32   // where each sequence's tokens begin, and the end
	Logits  *Tensor   // (tokens × experts)
	Expert  []int32   // of each token: the expert with the largest logit
	Prob    []float32 // of each token: that expert's probability
	// Slot is each token's row among all that are routed, ordered by expert and
	// then by token; −1 for a token beyond its expert's capacity, which no
	// expert sees and whose output is zero.
	Slot []int32
	// Starts says where each expert's rows begin, and the end.
	Starts []int32
	// Examples says, for each expert, where each sequence's rows begin among
	// those of the expert, and the end: expert after expert.
	Examples []int32
	Dropped  int // tokens beyond their expert's capacity

	dprob []float32 // gradient with respect to Prob
}

// Of returns where each sequence's rows begin among those of an expert.
func (r *Routing) Of(expert int) []int32 {
	n := len(r.Offsets)
	return r.Examples[expert*n : (expert+1)*n]
}

// Load is the number of tokens that an expert sees.
func (r *Routing) Load(expert int) int { return int(r.Starts[expert+1] - r.Starts[expert]) }

// ints returns s with length n, enlarged when needed.
func ints(s []int32, n int) []int32 {
	if cap(s) < n {
		return make([]int32, n+n/4)[:n]
	}
	return s[:n]
}

// Route sends each token to the expert with the largest logit, until that expert
// has seen capacity tokens of the token's sequence; logits are (tokens ×
// experts). As in transformers, a sequence is the group whose tokens compete.
func (t *Tape) Route(logits *Tensor, offsets []int32, capacity int) *Routing {
	r := t.routings.next()
	tokens, experts, n := logits.Rows, logits.Cols, len(offsets)
	r.Experts, r.Offsets, r.Logits, r.Dropped = experts, offsets, logits, 0
	r.Expert, r.Slot = ints(r.Expert, tokens), ints(r.Slot, tokens)
	r.Starts, r.Examples = ints(r.Starts, experts+1), ints(r.Examples, experts*n)
	r.Prob, r.dprob = t.floats(tokens), nil
	clear(r.Examples)
	for s := range n - 1 {
		for i := int(offsets[s]); i < int(offsets[s+1]); i++ {
			row := logits.Data[i*experts : (i+1)*experts]
			best := 0
			for e, v := range row {
				if v > row[best] {
					best = e
				}
			}
			var z float64
			for _, v := range row {
				z += math.Exp(float64(v - row[best]))
			}
			r.Expert[i], r.Prob[i] = int32(best), float32(1/z)
			seen := &r.Examples[best*n+s+1]
			if int(*seen) == capacity {
				r.Slot[i] = -1
				r.Dropped++
				continue
			}
			*seen++
			r.Slot[i] = 0
		}
	}
	r.Starts[0] = 0
	for e := range experts {
		of := r.Of(e)
		for s := 1; s < n; s++ {
			of[s] += of[s-1]
		}
		r.Starts[e+1] = r.Starts[e] + of[n-1]
	}
	next := ints(t.nextSlot, experts)
	t.nextSlot = next
	copy(next, r.Starts)
	for i, e := range r.Expert {
		if r.Slot[i] == 0 {
			r.Slot[i] = next[e]
			next[e]++
		}
	}
	return r
}

type dispatch struct {
	r   *Routing
	x   *Tensor
	xs  []*Tensor // of each expert
	all []float32 // their memory
	dx  []float32
	add bool
}

// Dispatch returns, for each expert, the rows of x that are routed to it, in the
// tokens' order: (tokens of the expert × width).
func (t *Tape) Dispatch(x *Tensor, r *Routing) []*Tensor {
	op := t.dispatches.next()
	op.r, op.x, op.xs = r, x, op.xs[:0]
	op.all = t.floats(int(r.Starts[r.Experts]) * x.Cols)
	for e := range r.Experts {
		y := t.tensors.next()
		from, to := int(r.Starts[e])*x.Cols, int(r.Starts[e+1])*x.Cols
		*y = Tensor{Rows: r.Load(e), Cols: x.Cols, Data: op.all[from:to:to], noGrad: x.noGrad}
		op.xs = append(op.xs, y)
	}
	t.Pool.Run(rowChunks(x.Rows), (*dispatchForward)(op))
	t.record(op)
	return op.xs
}

type dispatchForward dispatch

func (o *dispatchForward) Do(i, _ int) {
	c := o.x.Cols
	for row := i * rowChunk; row < min(o.x.Rows, (i+1)*rowChunk); row++ {
		if s := int(o.r.Slot[row]); s >= 0 {
			copy(o.all[s*c:(s+1)*c], o.x.Data[row*c:(row+1)*c])
		}
	}
}

func (o *dispatch) backward(t *Tape) {
	if o.x.noGrad {
		return
	}
	o.dx, o.add = t.gradOf(o.x)
	t.Pool.Run(rowChunks(o.x.Rows), (*dispatchBackward)(o))
	for _, x := range o.xs {
		t.release(x)
	}
}

type dispatchBackward dispatch

func (o *dispatchBackward) Do(i, _ int) {
	c := o.x.Cols
	for row := i * rowChunk; row < min(o.x.Rows, (i+1)*rowChunk); row++ {
		dx := o.dx[row*c : (row+1)*c]
		var dy []float32
		if s := int(o.r.Slot[row]); s >= 0 {
			e := o.r.Expert[row]
			if g := o.xs[e].Grad; g != nil {
				s -= int(o.r.Starts[e])
				dy = g[s*c : (s+1)*c]
			}
		}
		switch {
		case dy == nil && !o.add:
			clear(dx)
		case dy == nil:
		case o.add:
			kernel.Add(dx, dy)
		default:
			copy(dx, dy)
		}
	}
}

type combine struct {
	t  *Tape
	r  *Routing
	ys []*Tensor // of each expert; nil where it saw no token
	y  *Tensor
}

// Combine returns, for each token, its probability times its expert's output, and
// zero where it was dropped: (tokens × width). ys holds the output of each expert
// for the rows that Dispatch gave it; nil for an expert without any.
func (t *Tape) Combine(ys []*Tensor, r *Routing, width int) *Tensor {
	y := t.New(len(r.Slot), width)
	y.noGrad = r.Logits.noGrad
	op := t.combines.next()
	op.t, op.r, op.y, op.ys = t, r, y, append(op.ys[:0], ys...)
	for _, x := range ys {
		y.noGrad = y.noGrad && (x == nil || x.noGrad)
	}
	t.Pool.Run(rowChunks(y.Rows), (*combineForward)(op))
	t.record(op)
	return y
}

// of returns the place of a token's output among its expert's; nil when dropped.
func (o *combine) of(row int) (y *Tensor, at int) {
	s := o.r.Slot[row]
	if s < 0 {
		return nil, 0
	}
	e := o.r.Expert[row]
	return o.ys[e], int(s-o.r.Starts[e]) * o.y.Cols
}

type combineForward combine

func (f *combineForward) Do(i, _ int) {
	o := (*combine)(f)
	c := o.y.Cols
	for row := i * rowChunk; row < min(o.y.Rows, (i+1)*rowChunk); row++ {
		y := o.y.Data[row*c : (row+1)*c]
		if x, at := o.of(row); x != nil {
			copy(y, x.Data[at:at+c])
			kernel.Scale(y, o.r.Prob[row])
		} else {
			clear(y)
		}
	}
}

func (o *combine) backward(t *Tape) {
	if o.y.Grad == nil || o.y.noGrad {
		return
	}
	for _, x := range o.ys {
		if x != nil {
			t.gradOf(x)
		}
	}
	if !o.r.Logits.noGrad {
		o.r.dprob = t.floats(o.y.Rows)
	}
	t.Pool.Run(rowChunks(o.y.Rows), (*combineBackward)(o))
	if !o.r.Logits.noGrad {
		o.toLogits(t)
	}
	t.release(o.y)
}

type combineBackward combine

func (b *combineBackward) Do(i, _ int) {
	o := (*combine)(b)
	c := o.y.Cols
	for row := i * rowChunk; row < min(o.y.Rows, (i+1)*rowChunk); row++ {
		dy := o.y.Grad[row*c : (row+1)*c]
		x, at := o.of(row)
		var dp float32
		if x != nil {
			dp = kernel.Dot(dy, x.Data[at:at+c])
			dx := x.Grad[at : at+c]
			copy(dx, dy)
			kernel.Scale(dx, o.r.Prob[row])
		}
		if o.r.dprob != nil {
			o.r.dprob[row] = dp
		}
	}
}

// toLogits carries the probabilities' gradient on: the largest of a softmax has
// the derivative p·(1 or 0 − p_j).
func (o *combine) toLogits(t *Tape) {
	r := o.r
	dl, add := t.gradOf(r.Logits)
	if !add {
		clear(dl)
	}
	for i, dp := range r.dprob {
		at := i * r.Experts
		if dp == 0 {
			continue
		}
		best := int(r.Expert[i])
		top := r.Logits.Data[at+best]
		p := r.Prob[i]
		for e := range r.Experts {
			q := p * float32(math.Exp(float64(r.Logits.Data[at+e]-top)))
			d := -q
			if e == best {
				d++
			}
			dl[at+e] += dp * p * d
		}
	}
}

// RouterLosses returns, over the mixtures of one stack of layers on the same
// tokens, the router z-loss (arXiv 2202.08906, equation 5) and the load-balancing
// loss (arXiv 2101.03961, equations 4–6) as transformers computes them: the first
// the mean over tokens of the squared log-sum of the logits' exponentials, the
// second the mean over sequences, in whose tokens of all layers it counts. While
// training it adds z and balance times their gradients to the logits'; it is
// called between the forward pass and Backward.
func (t *Tape) RouterLosses(routings []*Routing, z, balance float64) (zLoss, balanceLoss float64) {
	if len(routings) == 0 {
		return 0, 0
	}
	first := routings[0]
	n, experts := len(first.Offsets)-1, first.Experts
	layers, tokens := float64(len(routings)), float64(len(first.Slot))
	share, prob := make0(&t.routerSums[0], experts), make0(&t.routerSums[1], experts)
	p := make0(&t.routerSums[2], experts)
	for _, r := range routings {
		if t.Train && !r.Logits.noGrad {
			if dl, add := t.gradOf(r.Logits); !add {
				clear(dl)
			}
		}
	}
	for s := range n {
		from, to := int(first.Offsets[s]), int(first.Offsets[s+1])
		clear(share)
		clear(prob)
		count := layers * float64(to-from)
		for _, r := range routings {
			for i := from; i < to; i++ {
				share[r.Expert[i]] += 1 / count
				softmax64(p, r.Logits.Data[i*experts:(i+1)*experts])
				for e := range p {
					prob[e] += p[e] / count
				}
			}
		}
		for e := range experts {
			balanceLoss += float64(experts) / float64(n) * share[e] * prob[e]
		}
		for _, r := range routings {
			for i := from; i < to; i++ {
				at := i * experts
				logZ := softmax64(p, r.Logits.Data[at:at+experts])
				zLoss += logZ * logZ / (tokens * layers)
				if !t.Train || r.Logits.noGrad {
					continue
				}
				var mean float64
				for e := range p {
					mean += p[e] * share[e]
				}
				for e := range p {
					g := z*2*logZ*p[e]/(tokens*layers) + balance*float64(experts)/(float64(n)*count)*p[e]*(share[e]-mean)
					r.Logits.Grad[at+e] += float32(g)
				}
			}
		}
	}
	return zLoss, balanceLoss
}

// softmax64 writes the softmax of a row and returns the log of its denominator.
func softmax64(p []float64, row []float32) (logZ float64) {
	top := float64(row[0])
	for _, v := range row {
		top = max(top, float64(v))
	}
	var z float64
	for e, v := range row {
		p[e] = math.Exp(float64(v) - top)
		z += p[e]
	}
	for e := range p {
		p[e] /= z
	}
	return top + math.Log(z)
}

// make0 returns n zeros in *s, enlarged when needed.
func make0(s *[]float64, n int) []float64 {
	if cap(*s) < n {
		*s = make([]float64, n)
	}
	*s = (*s)[:n]
	clear(*s)
	return *s
}
