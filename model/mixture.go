package model

import (
	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// Usage counts what a router has done since it was last cleared.
type Usage struct {
	Name    string  `json:"mixture"` // e.g. encoder.block.1.layer.1.mlp
	Tokens  []int64 `json:"tokens"`  // seen by each expert
	Dropped int64   `json:"dropped"` // beyond their expert's capacity
}

// All is the number of tokens that came to the router.
func (u *Usage) All() int64 {
	n := u.Dropped
	for _, seen := range u.Tokens {
		n += seen
	}
	return n
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
		list = append(list, x.routing)
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
				m.routings = append(m.routings, x.routing)
			}
		}
		if len(m.routings) == 0 {
			continue
		}
		m.RouterZLoss[i], m.BalanceLoss[i] = t.RouterLosses(m.routings, c.ZLoss, c.BalanceLoss)
		loss += c.ZLoss*m.RouterZLoss[i] + c.BalanceLoss*m.BalanceLoss[i]
	}
	return loss
}

// mixture is a sublayer in which each token passes through the one expert that a
// router chooses.
type mixture struct {
	decoder bool // of an encoder–decoder's second stack
	router  *nn.Linear
	experts []*MLP
	busy    mlps         // the experts that saw a token in the last forward
	outputs []*nn.Tensor // of the last forward, by expert; nil where it saw no token
	routing *nn.Routing  // of the last forward
	usage   *Usage
}

// mixture states a mixture of the given name: its router and its experts, each a
// block of its own.
func (b *builder) mixture(name, router string, expert func(e int) Block) *mixture {
	c := &b.cfg.Mixture
	m := &mixture{usage: &Usage{Name: name, Tokens: make([]int64, c.Experts)}, outputs: make([]*nn.Tensor, c.Experts)}
	m.router = b.linear(b.cfg.Hidden, c.Experts, c.RouterBias, Normal, router)
	for e := range c.Experts {
		block := expert(e)
		block.Experts, block.Expert, block.Mixture, block.Router = c.Experts, e, len(b.mixtures), router+".weight"
		if c.RouterBias {
			block.RouterBias = router + ".bias"
		}
		m.decoder = block.Stack == "decoder"
		m.experts = append(m.experts, b.mlp(block))
	}
	b.mixtures = append(b.mixtures, m)
	return m
}

// forward sends each token of x through its expert. Tokens of one sequence
// compete for an expert's places; those it has no place for get zero, so that
// they pass by on the residual path. The router computes in float32 always
// (section 2.4) and, while training, reads its input multiplied by noise.
func (m *mixture) forward(t *nn.Tape, x *nn.Tensor, offsets []int32, c *Config) *nn.Tensor {
	prec := t.Prec
	t.Prec = kernel.FP32
	logits := t.Linear(t.Jitter(x, c.Mixture.Jitter), m.router, kernel.Identity, nil)
	t.Prec = prec
	r := t.Route(logits, offsets, c.Mixture.Capacity)
	m.routing = r
	m.usage.Dropped += int64(r.Dropped)
	m.busy.of = m.busy.of[:0]
	for e, xe := range t.Dispatch(x, r) {
		m.usage.Tokens[e] += int64(xe.Rows)
		expert := m.experts[e]
		expert.X, expert.Offsets = xe, r.Of(e)
		if xe.Rows > 0 {
			m.busy.of = append(m.busy.of, expert)
		} else {
			expert.H, expert.Y = xe, xe // as a forward pass on no token would leave
		}
	}
	m.busy.forward(t, c.HiddenDrop)
	for e, expert := range m.experts {
		m.outputs[e] = nil
		if r.Load(e) > 0 {
			m.outputs[e] = expert.Y
		}
	}
	return t.Combine(m.outputs, r, x.Cols)
}
