package model

import (
	"fmt"

	"mlpfusion/nn"
)

// Model is a transformer with a classification or regression head.
type Model struct {
	Config  *Config
	Tensors []Tensor     // the statement, in the family's order
	Params  []*nn.Param  // what is trained
	Weights []*nn.Weight // the memory they lie in
	Blocks  []*Block     // MLPs, in order of depth
	family  *family
	net     network
	output  Output
}

// Input is a packed batch: the tokens of all sequences laid end to end.
type Input struct {
	IDs     []int32 // (tokens)
	Types   []int32 // (tokens), or nil for all 0
	Offsets []int32 // (sequences + 1): where each begins, and the end
}

// Output is what a forward pass gives. The tensors live until the tape's next
// Reset.
type Output struct {
	// AllTokens asks for the last layer's state of every token. Otherwise
	// only the first token of each sequence goes through the last layer.
	AllTokens bool
	// KeepHidden collects the hidden states; without it only logits are
	// kept, and evaluation reuses each layer's memory.
	KeepHidden bool

	Logits *nn.Tensor   // (sequences × labels)
	Hidden []*nn.Tensor // after the embeddings and after each layer (tokens × hidden)
}

func (o *Output) keep(t *nn.Tape, x *nn.Tensor) {
	if o.KeepHidden {
		o.Hidden = append(o.Hidden, x)
	} else {
		t.EndLayer(x)
	}
}

// Describe returns a family's statement for a configuration, without memory for
// the tensors' values.
func Describe(c *Config) ([]Tensor, []*Block, error) {
	f, err := familyOf(c.Type)
	if err != nil {
		return nil, nil, err
	}
	b := &builder{cfg: c}
	f.build(b)
	return b.tensors, b.blocks, nil
}

// New returns a model whose tensors are zero.
func New(c *Config) (*Model, error) {
	f, err := familyOf(c.Type)
	if err != nil {
		return nil, err
	}
	b := &builder{cfg: c, alloc: true}
	m := &Model{Config: c, family: f, net: f.build(b)}
	m.Tensors, m.Weights, m.Blocks = b.tensors, b.weights, b.blocks
	for i := range m.Tensors {
		if p := m.Tensors[i].Param; p != nil {
			m.Params = append(m.Params, p)
		}
	}
	return m, nil
}

// Forward runs the model on a batch and returns the logits (sequences ×
// labels). The ids must have passed Check.
func (m *Model) Forward(t *nn.Tape, in *Input) *nn.Tensor {
	m.output = Output{}
	m.net.forward(t, in, &m.output)
	return m.output.Logits
}

// ForwardAll is Forward with the hidden states that out asks for.
func (m *Model) ForwardAll(t *nn.Tape, in *Input, out *Output) {
	out.Hidden, out.Logits = out.Hidden[:0], nil
	m.net.forward(t, in, out)
}

// Embed returns the state that enters layer 0 (tokens × hidden).
func (m *Model) Embed(t *nn.Tape, in *Input) *nn.Tensor { return m.net.embed(t, in) }

// Layer returns the state after layer i, given that before it.
func (m *Model) Layer(t *nn.Tape, i int, x *nn.Tensor, in *Input) *nn.Tensor {
	return m.net.layer(t, i, x, in, false)
}

// Check tells whether a batch fits the model: every id inside its table and no
// sequence empty or longer than the positions.
func (m *Model) Check(in *Input) error {
	for i, id := range in.IDs {
		if id < 0 || int(id) >= m.Config.Vocab {
			return fmt.Errorf("token %d: expected an id below the vocabulary's %d, found %d", i, m.Config.Vocab, id)
		}
	}
	for i := range len(in.Offsets) - 1 {
		if n := int(in.Offsets[i+1] - in.Offsets[i]); n < 1 || n > m.MaxLength() {
			return fmt.Errorf("sequence %d: expected 1 to %d tokens, found %d", i, m.MaxLength(), n)
		}
	}
	for i, id := range in.Types {
		if m.net.usesTypes() && (id < 0 || int(id) >= m.Config.Types) {
			return fmt.Errorf("token %d: expected a token type below %d, found %d", i, m.Config.Types, id)
		}
	}
	return nil
}

// MaxLength is the largest number of tokens of a sequence.
func (m *Model) MaxLength() int { return m.net.maxLength() }

// ZeroGrad makes all gradients zero.
func (m *Model) ZeroGrad() {
	for _, w := range m.Weights {
		w.ZeroGrad()
	}
}

// ReadRows calls f with each embedding table and the rows of it that a forward
// pass on the batch reads.
func (m *Model) ReadRows(in *Input, f func(table *nn.Weight, rows []int32)) {
	m.net.readRows(in, f)
}
