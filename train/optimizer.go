package train

import (
	"fmt"
	"math"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// OptimizerConfig holds what does not change from step to step.
type OptimizerConfig struct {
	SGD         bool    // plain stochastic gradient descent instead of AdamW
	Beta1       float64 // of AdamW
	Beta2       float64
	Eps         float64
	WeightDecay float64 // decoupled; on parameters with Decay only
	ClipNorm    float64 // largest norm of the whole gradient; 0: no clipping
}

// PaperOptimizer is the paper's AdamW (section 5.1): beta (0.9, 0.98), eps 1e-6,
// weight decay 0.1, with gradients clipped at norm 1.
var PaperOptimizer = OptimizerConfig{Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, WeightDecay: 0.1, ClipNorm: 1}

// SGDOptimizer is plain gradient descent with the same clipping. It has no weight
// decay: decoupled decay goes by the learning rate, and 0.1 at one of 0.5 would take
// a twentieth of every weight each step.
var SGDOptimizer = OptimizerConfig{SGD: true, ClipNorm: 1}

// ParseOptimizer returns the optimizer of a name, adamw or sgd.
func ParseOptimizer(name string) (OptimizerConfig, error) {
	switch name {
	case "adamw":
		return PaperOptimizer, nil
	case "sgd":
		return SGDOptimizer, nil
	}
	return OptimizerConfig{}, fmt.Errorf("optimizer: expected adamw or sgd, found %q", name)
}

// Optimizer updates parameters from their gradients.
//
// Rows of embedding tables that a batch does not touch have a zero gradient but
// still move, by momentum and decay. Those steps are put off until the row is
// next read (CatchUp) or all are wanted (Flush) and then replayed one by one, so
// the result is the dense optimizer's to the last bit.
//
// A parameter that no backward has reached, of an expert that saw no token, is
// left alone and does not count the step, as PyTorch does without a gradient.
type Optimizer struct {
	cfg    OptimizerConfig
	pool   *kernel.Pool
	states []*state
	pieces []piece
	step   int
	past   []kernel.AdamW // constants of each step since the last Flush
	base   int            // the step past[0] belongs to
	sums   []float64
	now    kernel.AdamW
	zeros  []float32
	norm   float64
}

// state is one parameter with its moments.
type state struct {
	p    *nn.Param
	m, v []float32
	done []int32 // per row of an embedding: the steps applied so far
	idle int     // steps that it was left alone in
	now  kernel.AdamW
	skip bool // in the step under way
}

// piece is the part of a parameter that one iteration handles.
type piece struct {
	s        *state
	from, to int
}

const pieceSize = 1 << 15

// NewOptimizer returns an optimizer for the parameters that are not frozen.
func NewOptimizer(pool *kernel.Pool, params []*nn.Param, cfg OptimizerConfig) *Optimizer {
	o := &Optimizer{cfg: cfg, pool: pool}
	longest := 0
	for _, p := range params {
		if p.Weight.Frozen {
			continue
		}
		s := &state{p: p}
		if !cfg.SGD {
			s.m, s.v = make([]float32, len(p.Data)), make([]float32, len(p.Data))
		}
		o.states = append(o.states, s)
		longest = max(longest, p.Cols)
		if p.Weight.Touched != nil {
			s.done = make([]int32, len(p.Data)/p.Cols)
			o.pieces = append(o.pieces, piece{s, 0, len(p.Data)})
			continue
		}
		rows := max(1, pieceSize/p.Cols)
		for from := 0; from < len(p.Data); from += rows * p.Cols {
			o.pieces = append(o.pieces, piece{s, from, min(len(p.Data), from+rows*p.Cols)})
		}
	}
	o.sums = make([]float64, len(o.pieces))
	o.zeros = make([]float32, longest)
	return o
}

// Steps is the number of steps taken.
func (o *Optimizer) Steps() int { return o.step }

// Norm is the gradient's norm at the last step, before clipping.
func (o *Optimizer) Norm() float64 { return o.norm }

// Step applies the gradients at the given learning rate.
func (o *Optimizer) Step(lr float64) {
	for _, s := range o.states {
		if s.p.Weight.Stacked {
			s.p.Weight.SettleGrad()
		}
		s.skip = !s.p.Weight.Reached()
	}
	scale := 1.0
	o.pool.Run(len(o.pieces), (*normJob)(o))
	var sum float64
	for _, s := range o.sums {
		sum += s
	}
	o.norm = math.Sqrt(sum)
	if o.cfg.ClipNorm > 0 {
		scale = min(1, o.cfg.ClipNorm/(o.norm+1e-6)) // as torch's clip_grad_norm_
	}
	o.step++
	o.now = kernel.AdamW{
		LR: float32(lr), Beta1: float32(o.cfg.Beta1), Beta2: float32(o.cfg.Beta2), Eps: float32(o.cfg.Eps),
		Decay:       float32(o.cfg.WeightDecay),
		Correction1: float32(1 - math.Pow(o.cfg.Beta1, float64(o.step))),
		Correction2: float32(1 - math.Pow(o.cfg.Beta2, float64(o.step))),
		GradScale:   float32(scale),
	}
	o.past = append(o.past, o.now)
	for _, s := range o.states {
		if s.skip {
			s.idle++
		}
		s.now = o.now
		if taken := float64(o.step - s.idle); s.idle > 0 && !s.skip {
			s.now.Correction1 = float32(1 - math.Pow(o.cfg.Beta1, taken))
			s.now.Correction2 = float32(1 - math.Pow(o.cfg.Beta2, taken))
		}
	}
	o.pool.Run(len(o.pieces), (*stepJob)(o))
}

type normJob Optimizer

func (o *normJob) Do(i, _ int) {
	pc := o.pieces[i]
	p := pc.s.p
	var sum float64
	switch {
	case pc.s.skip:
	case pc.s.done != nil:
		for _, r := range p.Weight.Touched.Rows {
			sum += kernel.SumSquares(p.Grad()[int(r)*p.Cols : (int(r)+1)*p.Cols])
		}
	case p.Unit == nil || p.Unit.Norm == nil:
		sum = kernel.SumSquares(p.Grad()[pc.from:pc.to])
	case p.Unit.Columns:
		for at := pc.from; at < pc.to; at += p.Cols {
			sum += kernel.SumSquaresColumns(p.Grad()[at:at+p.Cols], p.Unit.Norm)
		}
	default:
		for at := pc.from; at < pc.to; at += p.Cols {
			sum += kernel.SumSquares(p.Grad()[at:at+p.Cols]) * float64(p.Unit.Norm[at/p.Cols])
		}
	}
	o.sums[i] = sum
}

type stepJob Optimizer

func (o *stepJob) Do(i, _ int) {
	pc := o.pieces[i]
	s, p := pc.s, pc.s.p
	if s.skip {
		return
	}
	if s.done != nil {
		for _, r := range p.Weight.Touched.Rows {
			(*Optimizer)(o).replay(s, int(r), o.step-1)
			at, end := int(r)*p.Cols, (int(r)+1)*p.Cols
			(*Optimizer)(o).update(s, at, end, p.Grad()[at:end], &o.now)
			s.done[r] = int32(o.step)
		}
		return
	}
	if p.Unit == nil || p.Unit.Step == nil {
		(*Optimizer)(o).update(s, pc.from, pc.to, p.Grad()[pc.from:pc.to], &s.now)
		return
	}
	for at := pc.from; at < pc.to; at += p.Cols {
		(*Optimizer)(o).updateUnits(s, at, at+p.Cols)
	}
}

// update applies one step to the elements [from, to) of a parameter.
func (o *Optimizer) update(s *state, from, to int, grad []float32, c *kernel.AdamW) {
	k := *c
	if !s.p.Decay {
		k.Decay = 0
	}
	if o.cfg.SGD {
		sgd(&k, s.p.Data[from:to], grad, 1)
		return
	}
	k.Step(s.p.Data[from:to], grad, s.m[from:to], s.v[from:to], 1)
}

// sgd takes a step of plain gradient descent with decoupled decay.
func sgd(c *kernel.AdamW, w, grad []float32, rate float32) {
	for i, g := range grad {
		w[i] -= c.LR * (c.Decay*w[i] + rate*c.GradScale*g)
	}
}

// updateUnits is update for one row of a fused MLP's parameter, each hidden
// unit's step multiplied by its own factor.
func (o *Optimizer) updateUnits(s *state, from, to int) {
	k, p := s.now, s.p
	if !p.Decay {
		k.Decay = 0
	}
	w, g := p.Data[from:to], p.Grad()[from:to]
	switch {
	case o.cfg.SGD && p.Unit.Columns:
		for j := range w {
			sgd(&k, w[j:j+1], g[j:j+1], p.Unit.Step[j])
		}
	case o.cfg.SGD:
		sgd(&k, w, g, p.Unit.Step[from/p.Cols])
	case p.Unit.Columns:
		k.StepColumns(w, g, s.m[from:to], s.v[from:to], p.Unit.Step)
	default:
		k.Step(w, g, s.m[from:to], s.v[from:to], p.Unit.Step[from/p.Cols])
	}
}

// replay applies to row r of an embedding the steps it has missed, up to step
// number until, each with a zero gradient.
func (o *Optimizer) replay(s *state, r, until int) {
	p := s.p
	at, end := r*p.Cols, (r+1)*p.Cols
	for t := int(s.done[r]); t < until; t++ {
		o.update(s, at, end, o.zeros[:p.Cols], &o.past[t-o.base])
	}
	s.done[r] = int32(until)
}

// CatchUp brings the rows of an embedding table up to date, which must be done
// before they are read. Tables that are not trained, or whole in every step,
// need nothing.
func (o *Optimizer) CatchUp(table *nn.Weight, rows []int32) {
	for _, s := range o.states {
		if s.p.Weight != table || s.done == nil {
			continue
		}
		for _, r := range rows {
			if int(s.done[r]) < o.step {
				o.replay(s, int(r), o.step)
			}
		}
	}
}

// Flush brings all parameters up to date.
func (o *Optimizer) Flush() {
	for _, s := range o.states {
		if s.done != nil {
			o.pool.Run(len(s.done), &flushJob{o, s})
		}
	}
	o.past, o.base = o.past[:0], o.step
}

type flushJob struct {
	o *Optimizer
	s *state
}

func (f *flushJob) Do(r, _ int) { f.o.replay(f.s, r, f.o.step) }

// Moments calls f with each parameter's name and moments, for saving and
// restoring them; after a Flush.
func (o *Optimizer) Moments(f func(name string, m, v []float32) error) error {
	if o.cfg.SGD {
		return nil
	}
	for _, s := range o.states {
		if err := f(s.p.Name, s.m, s.v); err != nil {
			return err
		}
	}
	return nil
}

// Idle returns, by name, how many steps each parameter was left alone in; those
// that took all of them are not listed.
func (o *Optimizer) Idle() map[string]int {
	idle := map[string]int{}
	for _, s := range o.states {
		if s.idle > 0 {
			idle[s.p.Name] = s.idle
		}
	}
	return idle
}

// Resume sets the number of steps taken, and of those that parameters were left
// alone in, after the parameters and moments have been restored.
func (o *Optimizer) Resume(step int, idle map[string]int) {
	o.step, o.base, o.past = step, step, o.past[:0]
	for _, s := range o.states {
		s.idle = idle[s.p.Name]
		for r := range s.done {
			s.done[r] = int32(step)
		}
	}
}
