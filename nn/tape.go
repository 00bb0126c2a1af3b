package nn

import "mlpfusion/kernel"

// Tensor is an activation: a (Rows × Cols) row-major matrix, its rows being
// tokens or sequences.
type Tensor struct {
	Rows, Cols int
	Data       []float32
	// Grad is the gradient of the loss with respect to Data, nil until some
	// backward writes it. For the output of an activation whose consumer is
	// a Linear it is the gradient before the activation (see Deriv).
	Grad []float32

	// Deriv is the derivative of the activation that made Data, when one did.
	Deriv     []float32
	derivDone bool // Grad has already been multiplied by Deriv
	noGrad    bool // nothing below needs a gradient
	watched   bool // see Watch
}

// Tape runs operations and, when Train is set, remembers how to take their
// gradients. One tape serves one goroutine.
type Tape struct {
	Pool *kernel.Pool
	Prec kernel.Precision
	// Train records backward passes and turns dropout on.
	Train bool
	// Seed selects the dropout masks; they depend on it and on the step given
	// to Reset, never on the number of workers.
	Seed uint64

	// Share is what the gradients of losses are multiplied by: the part that a pass has in
	// a step of several; 0 stands for 1.
	Share float64

	counter    uint64
	again      bool     // see Again
	arenas     [2]arena // training uses the first; inference flips between them
	current    int
	kept       arena // what inference keeps through all layers
	grads      freeList
	ops        []backward
	tensors    slab[Tensor]
	linears    slab[linear]
	groups     slab[linears]
	norms      slab[addNorm]
	embeds     slab[embed]
	attends    slab[attention]
	attendOnes slab[attendOne]
	rotates    slab[rotate]
	gathers    slab[gather]
	drops      slab[dropout]
	adds       slab[add]
	jitters    slab[jitter]
	gateds     slab[gated]
	gateRows   slab[gateRows]
	clamps     slab[clamp]
	headsOf    slab[heads]
	scales     slab[scaled]
	lowRanks   slab[lowRank]
	rmsNorms   slab[rmsNorm]
	routings   slab[Routing]
	dispatches slab[dispatch]
	combines   slab[combine]
	nextSlot   []int32      // of Route
	routerSums [3][]float64 // of RouterLosses
	work       [][]float32
	columns    addColumns
	multiply   multiply
	activate   activate
	ones       []int32 // 0, 1, 2 …: sequences of one query each
	distance   squaredDistance
	vocabulary vocabularyLoss
	capped     capped
	keepZeros  keepZeros
}

type backward interface{ backward(t *Tape) }

// NewTape returns a tape for the pool. That of an idle pool counts the memory that it
// hands out and has little of its own.
func NewTape(pool *kernel.Pool) *Tape {
	t := &Tape{Pool: pool, work: make([][]float32, pool.Workers())}
	if pool.Idle() {
		shared := new([]float32)
		t.arenas[0].idle, t.arenas[1].idle, t.kept.idle, t.grads.idle, t.vocabulary.idle = shared, shared, shared, shared, shared
	}
	return t
}

// Bytes is the memory for activations and their gradients that the tape has used at most;
// what Reset takes back is still its own.
func (t *Tape) Bytes() int64 {
	n := t.arenas[0].floats() + t.arenas[1].floats() + t.kept.floats() + len(t.vocabulary.logits) + len(t.vocabulary.theirs)
	for _, b := range t.grads.all {
		n += cap(b)
	}
	for _, w := range t.work {
		n += len(w)
	}
	return 4 * int64(n)
}

// Reset forgets all tensors and operations, keeping their memory for the next
// step. Tensors of before must not be used again.
func (t *Tape) Reset(step int) {
	t.counter = uint64(step) << 40
	t.ops = t.ops[:0]
	t.arenas[0].reset()
	t.arenas[1].reset()
	t.current = 0
	t.grads.reset()
	t.tensors.reset()
	t.linears.reset()
	t.groups.reset()
	t.norms.reset()
	t.embeds.reset()
	t.attends.reset()
	t.attendOnes.reset()
	t.rotates.reset()
	t.gathers.reset()
	t.drops.reset()
	t.adds.reset()
	t.jitters.reset()
	t.gateds.reset()
	t.gateRows.reset()
	t.clamps.reset()
	t.headsOf.reset()
	t.scales.reset()
	t.lowRanks.reset()
	t.rmsNorms.reset()
	t.routings.reset()
	t.dispatches.reset()
	t.combines.reset()
	t.kept.reset()
}

// EndLayer marks that of all tensors made so far only the given one is still
// needed. It frees the others when not training; while training they are kept
// for the backward pass.
func (t *Tape) EndLayer(*Tensor) {
	if t.Train {
		return
	}
	t.current ^= 1
	t.arenas[t.current].reset()
}

// Keep returns x so that it outlives EndLayer, for what later layers read again.
func (t *Tape) Keep(x *Tensor) *Tensor {
	if t.Train {
		return x
	}
	y := t.tensors.next()
	*y = *x
	y.Data = t.kept.alloc(len(x.Data))
	copy(y.Data, x.Data)
	return y
}

// Backward runs the recorded operations' backward passes, last first. The
// gradients of the outputs must have been set, as the losses do.
func (t *Tape) Backward() { t.backwardTo(0) }

// backwardTo runs the backward passes of all operations but the first n. They may
// record further ones for as long as they run.
func (t *Tape) backwardTo(n int) {
	for i := len(t.ops) - 1; i >= n; i-- {
		t.ops[i].backward(t)
	}
	t.ops = t.ops[:n]
}

// New returns a tensor with undefined contents.
func (t *Tape) New(rows, cols int) *Tensor {
	x := t.tensors.next()
	*x = Tensor{Rows: rows, Cols: cols, Data: t.floats(rows * cols)}
	return x
}

// share is Share.
func (t *Tape) share() float64 {
	if t.Share == 0 {
		return 1
	}
	return t.Share
}

func (t *Tape) floats(n int) []float32 { return t.arenas[t.current].alloc(n) }

func (t *Tape) record(op backward) {
	if t.Train {
		t.ops = append(t.ops, op)
	}
}

// gradOf returns x.Grad for writing, and whether it holds a gradient that must
// be added to rather than overwritten.
func (t *Tape) gradOf(x *Tensor) (g []float32, accumulate bool) {
	if x.Grad != nil {
		return x.Grad, true
	}
	x.Grad = t.grads.get(x.Rows * x.Cols)
	return x.Grad, false
}

// Watch has Backward give x its gradient even where nothing below trains, and
// leave it readable. It is called before x is used.
func (t *Tape) Watch(x *Tensor) { x.noGrad, x.watched = false, true }

// takeGrad returns the finished gradient of an operation's output y, with the
// derivative of its activation applied; nil when nothing depended on y.
func (t *Tape) takeGrad(y *Tensor) []float32 {
	if y.Grad != nil && y.Deriv != nil && !y.derivDone {
		t.multiply = multiply{y.Grad, y.Deriv}
		t.Pool.Run(chunks(len(y.Grad)), &t.multiply)
		y.derivDone = true
	}
	return y.Grad
}

// release gives y's gradient memory back once its operation has used it.
func (t *Tape) release(y *Tensor) {
	if !y.watched {
		t.grads.put(y.Grad)
		y.Grad = nil
	}
}

// offset reserves n positions of the dropout stream.
func (t *Tape) offset(n int) uint64 {
	o := t.counter
	t.counter += uint64(n)
	return o
}

// workspace makes sure that every worker's private buffer holds n floats.
func (t *Tape) workspace(n int) {
	for w := range t.work {
		if len(t.work[w]) < n {
			t.work[w] = make([]float32, n+n/4)
		}
	}
}

const chunk = 16384 // elements of one iteration of an element-wise loop

func chunks(n int) int { return (n + chunk - 1) / chunk }

func chunkOf(i, n int) (from, to int) { return i * chunk, min(n, (i+1)*chunk) }

type multiply struct{ dst, src []float32 }

func (m *multiply) Do(i, _ int) {
	a, b := chunkOf(i, len(m.dst))
	kernel.Mul(m.dst[a:b], m.src[a:b])
}
