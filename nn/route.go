package nn

import (
	"math"

	"mlpfusion/kernel"
)

// Router says how a mixture chooses each token's experts by their logits, and how much
// each of them counts.
type Router struct {
	TopK    int  // experts that a token goes to
	Sigmoid bool // an expert's score is its logit's sigmoid; else they are the softmax of all
	// Normalize has the weights of a token's experts sum to 1. With a softmax that is
	// the softmax over the chosen alone, as some families put it.
	Normalize bool
	Scale     float32   // of the weights; 0: 1
	Bias      []float32 // (experts), added to the scores for the choice alone; nil: none
	// Groups > 0 has a token choose among the experts of its best TopGroups groups of
	// neighbours, each being as good as the sum of its GroupBest best experts.
	Groups, TopGroups, GroupBest int
	Capacity                     int // tokens of a sequence that an expert takes; 0: all
}

// Routing says which experts of a mixture each token goes to. It lives until the
// tape's next Reset.
type Routing struct {
	Router  *Router
	Experts int
	Offsets []int32 // where each sequence's tokens begin, and the end
	Logits  *Tensor // (tokens × experts)
	Expert  []int32 // (tokens × TopK): of each token, its experts from the best on
	// Weight is what multiplies those experts' outputs, Score the scores that it is made
	// of (tokens × TopK).
	Weight, Score []float32
	// Slot is the row of each token and expert among all that are routed, ordered by
	// expert and then by token; −1 for a token beyond its expert's capacity, which the
	// expert does not see and to whose output it adds nothing.
	Slot []int32
	// Starts says where each expert's rows begin, and the end.
	Starts []int32
	// Examples says, for each expert, where each sequence's rows begin among
	// those of the expert, and the end: expert after expert.
	Examples []int32
	Dropped  int // choices beyond their expert's capacity

	scores, choice []float32 // (tokens × experts): of one token those that are chosen by
	groups         []float32
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

// Route sends each token to experts, by logits (tokens × experts) and until an expert
// has seen the router's capacity of tokens of the token's sequence.
func (t *Tape) Route(logits *Tensor, offsets []int32, router *Router) *Routing {
	r := t.routings.next()
	tokens, experts, n, k := logits.Rows, logits.Cols, len(offsets), router.TopK
	r.Router, r.Experts, r.Offsets, r.Logits, r.Dropped = router, experts, offsets, logits, 0
	r.Expert, r.Slot = ints(r.Expert, tokens*k), ints(r.Slot, tokens*k)
	r.Starts, r.Examples = ints(r.Starts, experts+1), ints(r.Examples, experts*n)
	r.Weight, r.Score = t.floats(tokens*k), t.floats(tokens*k)
	r.scores, r.choice, r.groups = t.floats(tokens*experts), t.floats(tokens*experts), t.floats(tokens*router.Groups)
	t.Pool.Run(rowChunks(tokens), (*choose)(r))
	clear(r.Examples)
	for s := range n - 1 {
		for i := int(offsets[s]) * k; i < int(offsets[s+1])*k; i++ {
			seen := &r.Examples[int(r.Expert[i])*n+s+1]
			if router.Capacity > 0 && int(*seen) == router.Capacity {
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

// choose finds the experts of each token, and their weights.
type choose Routing

func (c *choose) Do(i, _ int) {
	r := (*Routing)(c)
	k := r.Router.TopK
	for row := i * rowChunk; row < min(r.Logits.Rows, (i+1)*rowChunk); row++ {
		at := row * r.Experts
		scores := r.scores[at : at+r.Experts]
		r.Router.scores(scores, r.Logits.Data[at:at+r.Experts])
		choice := r.choice[at : at+r.Experts]
		r.Router.choices(choice, scores, r.groups[row*r.Router.Groups:(row+1)*r.Router.Groups])
		var sum float32
		for j := row * k; j < (row+1)*k; j++ {
			best := largest(choice)
			r.Expert[j], r.Score[j] = int32(best), scores[best]
			choice[best] = float32(math.Inf(-1))
			sum += scores[best]
		}
		for j := row * k; j < (row+1)*k; j++ {
			r.Weight[j] = r.Score[j] * r.Router.scale()
			if r.Router.Normalize {
				r.Weight[j] /= sum
			}
		}
	}
}

func (o *Router) scale() float32 {
	if o.Scale == 0 {
		return 1
	}
	return o.Scale
}

// scores turns a token's logits into scores.
func (o *Router) scores(scores, logits []float32) {
	if o.Sigmoid {
		for e, v := range logits {
			scores[e] = sigmoid(v)
		}
		return
	}
	top := logits[largest(logits)]
	var z float64
	for e, v := range logits {
		x := math.Exp(float64(v - top))
		scores[e] = float32(x)
		z += x
	}
	kernel.Scale(scores, float32(1/z))
}

// choices writes what a token's experts are chosen by: the scores with the bias, less
// those of groups that are not among the best.
func (o *Router) choices(choice, scores, groups []float32) {
	copy(choice, scores)
	if o.Bias != nil {
		kernel.Add(choice, o.Bias)
	}
	if o.Groups == 0 {
		return
	}
	size := len(choice) / o.Groups
	for g := range groups {
		members := choice[g*size : (g+1)*size]
		groups[g] = sumOfLargest(members, o.GroupBest)
	}
	for range o.TopGroups {
		groups[largest(groups)] = float32(math.Inf(-1))
	}
	for g, v := range groups {
		if !math.IsInf(float64(v), -1) { // one that is left
			for e := g * size; e < (g+1)*size; e++ {
				choice[e] = float32(math.Inf(-1))
			}
		}
	}
}

// largest returns the place of the largest value, the first of several.
func largest(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

// sumOfLargest returns the sum of the n largest values, of 1 or 2.
func sumOfLargest(v []float32, n int) float32 {
	first, second := float32(math.Inf(-1)), float32(math.Inf(-1))
	for _, x := range v {
		if x > first {
			first, second = x, first
		} else {
			second = max(second, x)
		}
	}
	if n == 1 {
		return first
	}
	return first + second
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
	c, k := o.x.Cols, o.r.Router.TopK
	for row := i * rowChunk; row < min(o.x.Rows, (i+1)*rowChunk); row++ {
		for _, slot := range o.r.Slot[row*k : (row+1)*k] {
			if s := int(slot); s >= 0 {
				copy(o.all[s*c:(s+1)*c], o.x.Data[row*c:(row+1)*c])
			}
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
	c, k := o.x.Cols, o.r.Router.TopK
	for row := i * rowChunk; row < min(o.x.Rows, (i+1)*rowChunk); row++ {
		dx, add := o.dx[row*c:(row+1)*c], o.add
		for j := row * k; j < (row+1)*k; j++ {
			s, e := int(o.r.Slot[j]), o.r.Expert[j]
			if s < 0 || o.xs[e].Grad == nil {
				continue
			}
			s -= int(o.r.Starts[e])
			dy := o.xs[e].Grad[s*c : (s+1)*c]
			if add {
				kernel.Add(dx, dy)
			} else {
				copy(dx, dy)
			}
			add = true
		}
		if !add {
			clear(dx)
		}
	}
}

type combine struct {
	t  *Tape
	r  *Routing
	ys []*Tensor // of each expert; nil where it saw no token
	y  *Tensor

	dweights, dlogits []float32
}

// Combine returns, for each token, the sum of its experts' outputs times their weights:
// (tokens × width). ys holds the output of each expert for the rows that Dispatch gave
// it; nil for an expert without any.
func (t *Tape) Combine(ys []*Tensor, r *Routing, width int) *Tensor {
	y := t.New(r.Logits.Rows, width)
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

// of returns the place of choice j's output among its expert's; nil when dropped.
func (o *combine) of(j int) (y *Tensor, at int) {
	s := o.r.Slot[j]
	if s < 0 {
		return nil, 0
	}
	e := o.r.Expert[j]
	return o.ys[e], int(s-o.r.Starts[e]) * o.y.Cols
}

type combineForward combine

func (f *combineForward) Do(i, _ int) {
	o := (*combine)(f)
	c, k := o.y.Cols, o.r.Router.TopK
	for row := i * rowChunk; row < min(o.y.Rows, (i+1)*rowChunk); row++ {
		y := o.y.Data[row*c : (row+1)*c]
		clear(y)
		for j := row * k; j < (row+1)*k; j++ {
			if x, at := o.of(j); x != nil {
				kernel.Axpy(o.r.Weight[j], x.Data[at:at+c], y)
			}
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
	o.dlogits = nil
	if !o.r.Logits.noGrad {
		var add bool
		if o.dlogits, add = t.gradOf(o.r.Logits); !add {
			clear(o.dlogits)
		}
		o.dweights = t.floats(len(o.r.Weight))
	}
	t.Pool.Run(rowChunks(o.y.Rows), (*combineBackward)(o))
	t.release(o.y)
}

type combineBackward combine

func (b *combineBackward) Do(i, _ int) {
	o := (*combine)(b)
	c, k := o.y.Cols, o.r.Router.TopK
	for row := i * rowChunk; row < min(o.y.Rows, (i+1)*rowChunk); row++ {
		dy := o.y.Grad[row*c : (row+1)*c]
		for j := row * k; j < (row+1)*k; j++ {
			x, at := o.of(j)
			var dw float32
			if x != nil {
				dw = kernel.Dot(dy, x.Data[at:at+c])
				dx := x.Grad[at : at+c]
				copy(dx, dy)
				kernel.Scale(dx, o.r.Weight[j])
			}
			if o.dlogits != nil {
				o.dweights[j] = dw
			}
		}
		if o.dlogits != nil {
			o.r.toLogits(row, o.dweights[row*k:(row+1)*k], o.dlogits[row*o.r.Experts:(row+1)*o.r.Experts])
		}
	}
}

// toLogits adds to a token's gradient with respect to its logits, dl, what that with
// respect to its weights, dw, makes of it. dw becomes that with respect to the scores.
func (r *Routing) toLogits(row int, dw, dl []float32) {
	k := r.Router.TopK
	experts, scores := r.Expert[row*k:(row+1)*k], r.Score[row*k:(row+1)*k]
	var sum, mean float32
	for j, s := range scores {
		sum += s
		mean += s * dw[j]
	}
	for j := range dw {
		if r.Router.Normalize { // of s/Σs
			dw[j] = (dw[j] - mean/sum) / sum
		}
		dw[j] *= r.Router.scale()
	}
	if r.Router.Sigmoid {
		for j, e := range experts {
			dl[e] += dw[j] * scores[j] * (1 - scores[j])
		}
		return
	}
	mean = 0
	for j, s := range scores {
		mean += s * dw[j]
		dl[experts[j]] += s * dw[j]
	}
	if mean != 0 && !r.Router.Normalize { // else it is zero but for rounding
		kernel.Axpy(-mean, r.scores[row*r.Experts:(row+1)*r.Experts], dl)
	}
}

// RouterLosses returns, over the mixtures of one stack of layers on the same
// tokens, the router z-loss (arXiv 2202.08906, equation 5) and the load-balancing
// loss (arXiv 2101.03961, equations 4–6) as transformers computes them: the first
// the mean over tokens of the squared log-sum of the logits' exponentials, the
// second the mean over groups of tokens, in which it counts those of all layers; the
// groups begin at offsets: sequences, or all as one. While training it adds z and
// balance times their gradients to the logits'; it is called between the forward pass
// and Backward.
func (t *Tape) RouterLosses(routings []*Routing, offsets []int32, z, balance float64) (zLoss, balanceLoss float64) {
	if len(routings) == 0 {
		return 0, 0
	}
	first := routings[0]
	n, experts, k := len(offsets)-1, first.Experts, first.Router.TopK
	layers, tokens := float64(len(routings)), float64(first.Logits.Rows)
	share, prob := make0(&t.routerSums[0], experts), make0(&t.routerSums[1], experts)
	p := make0(&t.routerSums[2], experts)
	for _, r := range routings {
		if t.Train && !r.Logits.noGrad {
			if dl, add := t.gradOf(r.Logits); !add {
				clear(dl)
			}
		}
	}
	part := t.share()
	for s := range n {
		from, to := int(offsets[s]), int(offsets[s+1])
		clear(share)
		clear(prob)
		count := layers * float64(to-from)
		for _, r := range routings {
			for i := from; i < to; i++ {
				for _, e := range r.Expert[i*k : (i+1)*k] {
					share[e] += 1 / count
				}
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
					r.Logits.Grad[at+e] += float32(part * g)
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
