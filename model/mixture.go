package model

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// Usage counts what a router has done since it was last cleared.
type Usage struct {
	Name    string  `json:"mixture"` // e.g. encoder.block.1.layer.1.mlp
	Tokens  []int64 `json:"tokens"`  // seen by each expert
	Dropped int64   `json:"dropped"` // beyond their expert's capacity
}

// All is the number of choices: of each token that came to the router as many as the
// experts that it goes to.
func (u *Usage) All() int64 {
	n := u.Dropped
	for _, seen := range u.Tokens {
		n += seen
	}
	return n
}

// add counts what a router chose.
func (u *Usage) add(r *nn.Routing) {
	for e := range u.Tokens {
		u.Tokens[e] += int64(r.Load(e))
	}
	u.Dropped += int64(r.Dropped)
}

// Clear begins to count anew.
func (u *Usage) Clear() {
	clear(u.Tokens)
	u.Dropped = 0
}

// Usage returns the counts of each mixture of experts, in order of depth; they go
// on with every forward pass.
func (m *Model) Usage() (list []*Usage) {
	for _, x := range m.mixtures {
		list = append(list, x.usage)
	}
	return list
}

// ClearUsage begins the counts anew.
func (m *Model) ClearUsage() {
	for _, x := range m.mixtures {
		x.usage.Clear()
	}
}

// Routed sums the counts of all mixtures: the tokens that an expert saw, and
// those beyond their expert's capacity.
func (m *Model) Routed() (seen, dropped int64) {
	for _, x := range m.mixtures {
		dropped += x.usage.Dropped
		for _, n := range x.usage.Tokens {
			seen += n
		}
	}
	return seen, dropped
}

// Routings returns what the routers chose in the last forward pass, in order of
// depth.
func (m *Model) Routings() (list []*nn.Routing) {
	for _, x := range m.mixtures {
		list = append(list, x.last.Routing)
	}
	return list
}

// FreezeRouters has training leave the routers as they are, as the paper does.
func (m *Model) FreezeRouters() {
	for _, x := range m.mixtures {
		x.router.W.Frozen = true
		if x.router.B != nil {
			x.router.B.Frozen = true
		}
	}
}

// routerLosses returns the routers' losses of the forward pass that has just
// run, weighted, and adds their gradients; each stack has its own. Unlike
// transformers it knows them in a model whose every layer has a mixture, too.
func (m *Model) routerLosses(t *nn.Tape) (loss float64) {
	c := &m.Config.Mixture
	for i, decoder := range [2]bool{false, true} {
		m.routings = m.routings[:0]
		for _, x := range m.mixtures {
			if x.decoder == decoder {
				m.routings = append(m.routings, x.last.Routing)
			}
		}
		if len(m.routings) == 0 {
			continue
		}
		groups := m.routings[0].Offsets
		if !c.BySequence {
			m.batch = [2]int32{0, int32(m.routings[0].Logits.Rows)}
			groups = m.batch[:]
		}
		m.RouterZLoss[i], m.BalanceLoss[i] = t.RouterLosses(m.routings, groups, c.ZLoss, c.BalanceLoss)
		loss += c.ZLoss*m.RouterZLoss[i] + c.BalanceLoss*m.BalanceLoss[i]
	}
	return loss
}

// mixture is a sublayer in which each token passes through the experts that a
// router chooses.
type mixture struct {
	*Mixture
	decoder bool // of an encoder–decoder's second stack
	router  *nn.Linear
	bias    []float32 // of its choice; nil: none
	choice  nn.Router // of the last forward
	experts []*MLP
	shared  *MLP         // nil: none
	gate    *nn.Linear   // of the shared expert; nil: none
	busy    mlps         // the experts that saw a token in the last forward
	outputs []*nn.Tensor // of the last forward, by expert; nil where it saw no token
	last    Mixed
	kept    *nn.Tensor // the logits of a layer that is run again, for the routers' losses; nil: not needed
	usage   *Usage
}

// Mixed is what a mixture saw and gave in the last forward pass.
type Mixed struct {
	X, Y    *nn.Tensor // its input and output (tokens × hidden)
	Routing *nn.Routing
	// Residual is what the output is added to, where that is another tensor than X.
	Residual *nn.Tensor
}

// Mixed returns what mixture k did in the last forward pass.
func (m *Model) Mixed(k int) Mixed { return m.mixtures[k].last }

// mixture states a mixture of the given name: its router, which may have other places
// too, and its experts, each a block of its own.
func (b *builder) mixture(name, router string, also []Place, expert func(e int) Block) *mixture {
	c := &b.cfg.Mixture
	m := &mixture{Mixture: c, usage: &Usage{Name: name, Tokens: make([]int64, c.Experts)}, outputs: make([]*nn.Tensor, c.Experts)}
	m.router = b.linear(b.cfg.Hidden, c.Experts, c.RouterBias, Normal, router)
	for _, p := range also {
		b.also(p)
	}
	for e := range c.Experts {
		block := expert(e)
		block.Experts, block.Expert, block.Mixture, block.Router, block.Original = c.Experts, e, len(b.mixtures), router+".weight", c.Width
		block.TopK, block.WidthKey = c.TopK, c.widthKey
		if c.RouterBias {
			block.RouterBias = router + ".bias"
		}
		m.decoder = block.Stack == "decoder"
		m.experts = append(m.experts, b.mlp(block))
	}
	b.mixtures = append(b.mixtures, m)
	return m
}

// stackMixture states the mixture of a layer whose parts at names.
func (b *builder) stackMixture(layer int, at func(part string) string) *mixture {
	n, experts := &b.cfg.names.mixture, b.cfg.Mixture.Experts
	var also []Place
	if n.otherRouter != "" {
		also = append(also, Place{In: at(n.otherRouter)})
	}
	matrix := func(name string, stack Place) Matrix {
		if n.stacked {
			return Matrix{Name: name, Place: stack}
		}
		return Matrix{Name: name, Also: []Place{stack}}
	}
	m := b.mixture(at(n.name), at(n.name)+"."+n.router, also, func(e int) Block {
		name := at(n.name) + "." + fmt.Sprintf(n.expert, e)
		gateUp := Place{In: at(n.gateUpStack), Part: 2 * e, Parts: 2 * experts, Stack: experts}
		up := gateUp
		up.Part++
		return Block{Name: name, Layer: layer, Depth: layer, Gate: matrix(name+"."+n.gate, gateUp), Up: matrix(name+"."+n.up, up),
			Down: matrix(name+"."+n.down, Place{In: at(n.downStack), Part: e, Parts: experts, Stack: experts})}
	})
	for _, e := range m.experts { // as transformers holds them, whatever the file
		for _, l := range e.Linears() {
			l.W.Stacked = true
		}
	}
	if n.correction != "" {
		m.bias = b.fixed(Tensor{Name: at(n.name) + "." + n.correction, Shape: []int{experts}})
		for _, expert := range b.blocks[len(b.blocks)-experts:] {
			expert.Correction = at(n.name) + "." + n.correction
		}
	}
	if c := &b.cfg.Mixture; c.Shared > 0 {
		name := at(n.name) + "." + n.shared
		m.shared = b.mlp(Block{Name: name, Layer: layer, Depth: layer, Gate: Matrix{Name: name + "." + n.gate}, Up: Matrix{Name: name + "." + n.up},
			Down: Matrix{Name: name + "." + n.down}, Shared: true, Original: c.Shared, WidthKey: c.sharedKey, WidthTimes: c.sharedTimes})
		if c.SharedGate {
			m.gate = b.linear(b.cfg.Hidden, 1, false, Normal, at(n.name)+"."+n.sharedGate)
		}
	}
	return m
}

// forward is mix, of which it keeps what Mixed tells; residual is what the output will be
// added to, if that is not x.
func (m *mixture) forward(t *nn.Tape, x, residual *nn.Tensor, offsets []int32, drop float32) *nn.Tensor {
	m.last = Mixed{X: x}
	if residual != x {
		m.last.Residual = residual
	}
	m.last.Y = m.mix(t, x, offsets, drop)
	return m.last.Y
}

// mix sends each token of x through its experts. Where these have places, the
// tokens of one sequence compete for them; those an expert has no place for get zero
// of it, so that they pass by on the residual path. The router computes in float32
// always (Switch Transformers, arXiv 2101.03961, section 2.4) and, while training,
// reads its input multiplied by noise. drop is the dropout of the experts' units.
func (m *mixture) mix(t *nn.Tape, x *nn.Tensor, offsets []int32, drop float32) *nn.Tensor {
	noisy := t.Jitter(x, m.Jitter)
	if m.JitterExperts {
		x = noisy
	}
	prec := t.Prec
	t.Prec = kernel.FP32
	logits := t.Linear(noisy, m.router, kernel.Identity, nil)
	t.Prec = prec
	m.choice = m.Router
	m.choice.Bias = m.bias
	r := t.Route(logits, offsets, &m.choice)
	m.last.Routing = r
	if m.kept != nil {
		t.KeepLogits(r, m.kept)
	}
	if !t.Again() {
		m.usage.add(r)
	}
	m.busy.of = m.busy.of[:0]
	for e, xe := range t.Dispatch(x, r) {
		expert := m.experts[e]
		expert.X, expert.Offsets = xe, r.Of(e)
		if xe.Rows > 0 {
			m.busy.of = append(m.busy.of, expert)
		} else {
			expert.H, expert.Y = xe, xe // as a forward pass on no token would leave
		}
	}
	m.busy.forward(t, drop)
	for e, expert := range m.experts {
		m.outputs[e] = nil
		if r.Load(e) > 0 {
			m.outputs[e] = expert.Y
		}
	}
	y := t.Combine(m.outputs, r, x.Cols)
	if m.shared == nil {
		return y
	}
	always := m.shared.forward(t, x, offsets, drop)
	if m.gate != nil {
		always = t.GateRows(always, t.Linear(x, m.gate, kernel.Identity, nil))
	}
	return t.Add(always, y, 0)
}
