package model

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// Switch Transformers (arXiv 2101.03961): T5 with mixtures of experts in place of
// some MLPs. transformers has no class with a label head; its tensors are named
// here as T5's and the others as SwitchTransformersModel's, so that transformers
// loads all but the head.
var switchFamily = &family{
	architectures: map[Head]string{
		Classification: "SwitchTransformersForSequenceClassification", Regression: "SwitchTransformersForSequenceClassification",
		LanguageModel: "SwitchTransformersForConditionalGeneration",
	},
	head:      LanguageModel,
	lastToken: true,
	widthKey:  "d_ff",
	config:    switchConfig,
	unused:    t5Unused,
	build:     func(b *builder) network { return newT5(b, "", "mlp") },
}

func switchConfig(h *hfConfig, r *configReader) *Config {
	c := seq2seqConfig(h, r, "dense_act_fn", orDefault(h.DenseAct, "relu"))
	t := c.T5
	t.ScaledHead = orDefault(h.Tied, true)
	t.Experts = orDefault(h.NumExperts, 8)
	t.Capacity = orDefault(h.ExpertCapacity, 64)
	t.RouterBias = h.RouterBias
	t.Jitter = float32(orDefault(h.RouterJitter, 0.01))
	t.RouterZLoss, t.BalanceLoss = orDefault(h.RouterZLoss, 0.001), orDefault(h.RouterAuxLoss, 0.001)
	step := func(key string, sparse *int, layers int) int {
		n := orDefault(sparse, 3)
		if n < 0 || n > layers {
			r.fail("%s: expected 0 to the %d layers, found %d", key, layers, n)
			return 0
		}
		if n == 0 {
			return layers // as transformers: none of several layers
		}
		return layers / n
	}
	t.EncoderStep = step("num_sparse_encoder_layers", h.SparseEncoder, c.Layers)
	t.DecoderStep = step("num_sparse_decoder_layers", h.SparseDecoder, t.DecoderLayers)
	if t.Experts < 1 || t.Experts > 1<<16 {
		r.fail("num_experts: expected between 1 and %d, found %d", 1<<16, t.Experts)
	}
	if t.Capacity < 1 {
		r.fail("expert_capacity: expected at least 1, found %d", t.Capacity)
	}
	if !(t.Jitter >= 0 && t.Jitter < 1) {
		r.fail("router_jitter_noise: expected a number from 0 to below 1, found %g", t.Jitter)
	}
	return c
}

// sparse tells whether layer i of a stack has a mixture, one in step layers; a
// step of 0 is for none.
func sparse(i, step int) bool { return step == 1 || step > 1 && i%step == 1 }

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

// mixtures lists the model's mixtures of experts, of the encoder and of the
// decoder, in order of depth.
func (m *Model) mixtures() (stacks [2][]*mixture) {
	if n, ok := m.net.(*t5); ok {
		stacks = [2][]*mixture{n.encoder.mixtures, n.decoder.mixtures}
	}
	return stacks
}

// eachMixture calls f with each mixture of experts, in order of depth.
func (m *Model) eachMixture(f func(x *mixture)) {
	for _, stack := range m.mixtures() {
		for _, x := range stack {
			f(x)
		}
	}
}

// Usage returns the counts of each mixture of experts, in order of depth; they go
// on with every forward pass.
func (m *Model) Usage() (list []*Usage) {
	m.eachMixture(func(x *mixture) { list = append(list, x.usage) })
	return list
}

// ClearUsage begins the counts anew.
func (m *Model) ClearUsage() {
	m.eachMixture(func(x *mixture) { x.usage.Clear() })
}

// Routed sums the counts of all mixtures: the tokens that an expert saw, and
// those beyond their expert's capacity.
func (m *Model) Routed() (seen, dropped int64) {
	m.eachMixture(func(x *mixture) {
		dropped += x.usage.Dropped
		for _, n := range x.usage.Tokens {
			seen += n
		}
	})
	return seen, dropped
}

// Routings returns what the routers chose in the last forward pass, in order of
// depth.
func (m *Model) Routings() (list []*nn.Routing) {
	m.eachMixture(func(x *mixture) { list = append(list, x.routing) })
	return list
}

// FreezeRouters has training leave the routers as they are, as the paper does.
func (m *Model) FreezeRouters() {
	m.eachMixture(func(x *mixture) {
		x.router.W.Frozen = true
		if x.router.B != nil {
			x.router.B.Frozen = true
		}
	})
}

// routerLosses returns the routers' losses of the forward pass that has just
// run, weighted, and adds their gradients. Unlike transformers it knows them in
// a model whose every layer has a mixture, too.
func (m *Model) routerLosses(t *nn.Tape) (loss float64) {
	c := m.Config.T5
	for i, stack := range m.mixtures() {
		m.routings = m.routings[:0]
		for _, x := range stack {
			m.routings = append(m.routings, x.routing)
		}
		if len(m.routings) == 0 {
			continue
		}
		m.RouterZLoss[i], m.BalanceLoss[i] = t.RouterLosses(m.routings, c.RouterZLoss, c.BalanceLoss)
		loss += c.RouterZLoss*m.RouterZLoss[i] + c.BalanceLoss*m.BalanceLoss[i]
	}
	return loss
}

// mixture is a sublayer in which each token passes through the one expert that a
// router chooses.
type mixture struct {
	name    string // of the sublayer, e.g. encoder.block.1.layer.1.mlp
	router  *nn.Linear
	experts []*MLP
	busy    mlps         // the experts that saw a token in the last forward
	outputs []*nn.Tensor // of the last forward, by expert; nil where it saw no token
	routing *nn.Routing  // of the last forward
	usage   *Usage
}

// mixture states the experts of the sublayer blk, each a block of its own.
func (b *builder) mixture(prefix string, blk Block) *mixture {
	c := b.cfg
	m := &mixture{name: blk.Name, router: &nn.Linear{}, usage: &Usage{Name: blk.Name, Tokens: make([]int64, c.T5.Experts)}}
	router := prefix + blk.Name + ".router.classifier"
	if c.T5.RouterBias {
		m.router = b.linear(c.Hidden, c.T5.Experts, router)
	} else {
		m.router = b.plain(c.Hidden, c.T5.Experts, router)
	}
	blk.Router, blk.Experts = router+".weight", c.T5.Experts
	for e := range c.T5.Experts {
		expert := blk
		expert.Name, expert.Expert = fmt.Sprintf("%s.experts.expert_%d", blk.Name, e), e
		m.experts = append(m.experts, b.t5MLP(prefix, expert))
	}
	m.outputs = make([]*nn.Tensor, c.T5.Experts)
	return m
}

// forward sends each token of x through its expert. Tokens of one sequence
// compete for an expert's places; those it has no place for get zero, so that
// they pass by on the residual path. The router computes in float32 always
// (section 2.4) and, while training, reads its input multiplied by noise.
func (m *mixture) forward(t *nn.Tape, x *nn.Tensor, offsets []int32, c *Config) *nn.Tensor {
	prec := t.Prec
	t.Prec = kernel.FP32
	logits := t.Linear(t.Jitter(x, c.T5.Jitter), m.router, kernel.Identity, nil)
	t.Prec = prec
	r := t.Route(logits, offsets, c.T5.Capacity)
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
