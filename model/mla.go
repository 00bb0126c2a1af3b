package model

import (
	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// Latent describes attention whose keys and values, and it may be queries, are made of
// narrow states (multi-head latent attention, DeepSeek-V2, arXiv 2405.04434, section 2.1).
// A head of queries and keys is Plain elements without a position and Turned with one,
// of which all heads of keys share the latter; one of values is Value wide.
type Latent struct {
	QueryRank              int // 0: queries are made of the layer's input
	Rank                   int // of keys and values
	Plain, Turned, Value   int
	queryDown, queryNorm   string // names
	query                  string
	down, norm, keysValues string
}

// latent is that attention's projections.
type latent struct {
	*Attention
	queryDown *nn.Linear // and its norm: nil without a rank
	queryNorm *nn.RMSNorm
	query     *nn.Linear
	down      *nn.Linear // to the state of keys and values
	turned    *nn.Linear // to the part of the keys that has a position
	norm      *nn.RMSNorm
	up        *nn.Linear // each head's plain part of the keys, and its values
}

// latentEps is the epsilon of the norms of narrow states, whatever that of others.
const latentEps = 1e-6

// latent states the projections of a layer whose parts at names.
func (b *builder) latent(a *Attention, at func(part string) string) *latent {
	c, hidden := a.Latent, b.cfg.Hidden
	l := &latent{Attention: a}
	from := hidden
	if c.QueryRank > 0 {
		l.queryDown = b.linear(hidden, c.QueryRank, a.Bias, Normal, at(c.queryDown))
		l.queryNorm = b.rmsNorm(c.QueryRank, at(c.queryNorm))
		l.queryNorm.Eps = latentEps
		from = c.QueryRank
	}
	l.query = b.linear(from, a.Width(), false, Normal, at(c.query))
	l.down = b.linear(hidden, c.Rank+c.Turned, a.Bias, Normal, at(c.down))
	if b.alloc {
		l.down, l.turned = b.split(l.down, c.Rank)
	}
	l.norm = b.rmsNorm(c.Rank, at(c.norm))
	l.norm.Eps = latentEps
	l.up = b.linear(c.Rank, a.Heads*(c.Plain+c.Value), false, Normal, at(c.keysValues))
	return l
}

// project returns queries, keys and values of the tokens of x, which stand at places.
// Values are filled up with zeros to the width of keys.
func (l *latent) project(t *nn.Tape, x *nn.Tensor, places []int32) (q, k, v nn.Heads) {
	c := l.Latent
	from := x
	if l.queryDown != nil {
		from = t.RMSNorm(t.Linear(x, l.queryDown, kernel.Identity, nil), l.queryNorm)
	}
	q.X = t.Linear(from, l.query, kernel.Identity, nil)
	t.Rotate(nn.Heads{X: q.X, Start: c.Plain}, l.Heads, l.Dim, l.Rope, places)
	turned := t.Linear(x, l.turned, kernel.Identity, nil)
	t.Rotate(nn.Heads{X: turned}, 1, c.Turned, l.Rope, places)
	both := t.Linear(t.RMSNorm(t.Linear(x, l.down, kernel.Identity, nil), l.norm), l.up, kernel.Identity, nil)
	k.X = t.Heads(l.Heads, l.Dim, nn.Columns{X: both, Stride: c.Plain + c.Value, Width: c.Plain}, nn.Columns{X: turned, Width: c.Turned, At: c.Plain})
	v.X = t.Heads(l.Heads, l.Dim, nn.Columns{X: both, Start: c.Plain, Stride: c.Plain + c.Value, Width: c.Value})
	return q, k, v
}

// narrow returns what attention gives without the zeros that project filled values up
// with.
func (l *latent) narrow(t *nn.Tape, ctx *nn.Tensor) *nn.Tensor {
	return t.Heads(l.Heads, l.Latent.Value, nn.Columns{X: ctx, Stride: l.Dim, Width: l.Latent.Value})
}
