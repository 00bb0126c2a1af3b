package model

import (
	"runtime/debug"

	"mlpfusion/nn"
)

// Parts gives a model a layer at a time, for passes that need no more of it in memory:
// a *Source reads each part from its checkpoint, a *Model is all of its parts.
type Parts interface {
	// Part returns a model of which what layer depth reads is there; −1 are the
	// embeddings, and Config.Depth() is the head. It may be used until the next call.
	Part(depth int) (*Model, error)
	// Statement returns the configuration and the blocks, for what holds of all parts.
	Statement() (*Config, []*Block)
}

// Part implements Parts.
func (m *Model) Part(int) (*Model, error) { return m, nil }

// Statement implements Parts.
func (m *Model) Statement() (*Config, []*Block) { return m.Config, m.Blocks }

// Part implements Parts. The part before is left to the garbage collector, which runs
// first: two layers are never there at once.
func (s *Source) Part(depth int) (*Model, error) {
	debug.FreeOSMemory()
	m, err := s.load(&depth)
	if err != nil {
		return nil, err
	}
	// A block that is given other matrices is to leave its own to the collector.
	m.Tensors, m.Params, m.Weights, m.memory = nil, nil, nil, memory{}
	return m, nil
}

// Statement implements Parts.
func (s *Source) Statement() (*Config, []*Block) { return s.Config, s.Blocks }

// Depth is the number of layers, an encoder's and a decoder's together.
func (c *Config) Depth() int { return c.Layers + c.DecoderLayers }

// Logits checks a batch, runs a model part by part on it and returns what Model.Forward
// does.
func Logits(t *nn.Tape, p Parts, in *Input) (*nn.Tensor, error) {
	m, err := p.Part(-1)
	if err != nil {
		return nil, err
	}
	if err := m.Check(in); err != nil {
		return nil, err
	}
	ids, offsets := m.stream(in)
	rows := m.Config.rowsRead(nil, ids, offsets)
	x := m.Embed(t, in)
	for i := range m.Depth() {
		if m, err = p.Part(i); err != nil {
			return nil, err
		}
		if i < m.Depth()-1 {
			x = m.Layer(t, i, x, in)
		} else {
			x = m.net.layer(t, i, x, in, rows)
		}
	}
	if m, err = p.Part(m.Depth()); err != nil {
		return nil, err
	}
	return m.head.logits(t, x.X), nil
}
