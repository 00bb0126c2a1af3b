package model

import (
	"fmt"

	"mlpfusion/nn"
)

// Model is a transformer with a head.
type Model struct {
	Config  *Config
	Tensors []Tensor     // the statement, in the family's order
	Params  []*nn.Param  // what is trained
	Weights []*nn.Weight // the memory they lie in
	Blocks  []*Block     // MLPs, in order of depth
	family  *family
	net     network
	head    *head
	memory  memory
	paths   []Tensor // of Config.Adapter

	mixtures []*mixture // of experts, in order of depth

	// RouterLosses has Loss add the routers' losses of a model with mixtures of
	// experts, weighted as the configuration says; meant for trained routers.
	RouterLosses bool
	// RouterZLoss and BalanceLoss are what the last Loss added before weighting:
	// of the encoder and of the decoder.
	RouterZLoss, BalanceLoss [2]float64

	recompute bool // see Recompute

	routings []*nn.Routing // of one stack
	batch    [2]int32      // all its tokens
	output   Output
	rows     []int32              // that the head reads
	targets  []int32              // of those rows
	teacher  nn.VocabularyTeacher // of the last Distill
}

// Input is a packed batch: the tokens of all sequences laid end to end.
type Input struct {
	IDs     []int32 // (tokens)
	Types   []int32 // (tokens), or nil for all 0
	Offsets []int32 // (sequences + 1): where each begins, and the end

	// Targets are, for a language model, the ids to be predicted at each token
	// (of an encoder–decoder at each of the decoder's), −1 where none is. Only
	// Loss reads them.
	Targets []int32
	// DecoderIDs and DecoderOffsets are the decoder's tokens, of as many
	// sequences, for encoder–decoders.
	DecoderIDs, DecoderOffsets []int32

	// past is what came before these tokens, see Next.
	past *Cache
}

// stream returns the tokens that the head sees, the decoder's where there is one,
// and where each sequence begins among them.
func (in *Input) stream() (ids, offsets []int32) {
	if in.DecoderOffsets != nil {
		return in.DecoderIDs, in.DecoderOffsets
	}
	return in.IDs, in.Offsets
}

// stream is Input.stream, with the decoder's tokens that an encoder–decoder makes
// of the text where the batch has none.
func (m *Model) stream(in *Input) (ids, offsets []int32) {
	if n, ok := m.net.(encoder); ok {
		return n.decoderInput(in)
	}
	return in.stream()
}

// Slice returns sequences [from, to) of a batch. It shares the tokens' memory.
func (in *Input) Slice(from, to int) *Input {
	part := &Input{}
	cut := func(ids, offsets []int32) (_, _ []int32) {
		a, b := offsets[from], offsets[to]
		shifted := make([]int32, 0, to-from+1)
		for _, o := range offsets[from : to+1] {
			shifted = append(shifted, o-a)
		}
		return ids[a:b], shifted
	}
	part.IDs, part.Offsets = cut(in.IDs, in.Offsets)
	if in.Types != nil {
		part.Types, _ = cut(in.Types, in.Offsets)
	}
	if in.DecoderOffsets != nil {
		part.DecoderIDs, part.DecoderOffsets = cut(in.DecoderIDs, in.DecoderOffsets)
	}
	if in.Targets != nil {
		_, offsets := in.stream()
		part.Targets, _ = cut(in.Targets, offsets)
	}
	return part
}

// State is what passes from layer to layer.
type State struct {
	X *nn.Tensor // (tokens × hidden); of a decoder's layers the decoder's tokens
	// Encoded is the encoder's output, which the decoder of an encoder–decoder
	// reads; nil before that.
	Encoded *nn.Tensor
}

// Output is what a forward pass gives. The tensors live until the tape's next
// Reset.
type Output struct {
	// AllTokens asks for the last layer's state of every token. Otherwise only
	// the tokens that the head reads go all the way through the last layer.
	AllTokens bool
	// KeepHidden collects the hidden states; without it only logits are
	// kept, and evaluation reuses each layer's memory.
	KeepHidden bool

	// Logits are (sequences × labels). Of a language model they are (sequences ×
	// vocabulary), for the token that follows each sequence.
	Logits *nn.Tensor
	// Hidden are the states after the embeddings and after each layer (tokens ×
	// hidden).
	Hidden []*nn.Tensor
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
	if _, err := familyOf(c.Type); err != nil {
		return nil, nil, err
	}
	b := &builder{cfg: c}
	b.network()
	return b.tensors, b.blocks, nil
}

// New returns a model whose tensors are zero.
func New(c *Config) (*Model, error) {
	if err := checkHead(c); err != nil {
		return nil, err
	}
	return build(&builder{cfg: c, alloc: true}), nil
}

// Share returns another model on m's weights, packed as they are now, for a
// goroutine of its own: a model serves one pass at a time, as it keeps what it works
// with. While others run none may train.
func (m *Model) Share() *Model {
	s := build(&builder{cfg: m.Config, alloc: true, shared: &m.memory})
	s.RouterLosses = m.RouterLosses
	for i, w := range s.Weights {
		*w = *m.Weights[i] // what is a view of a weight has been made anew
	}
	return s
}

// build makes a model with the memory that the builder gives it.
func build(b *builder) *Model {
	c := b.cfg
	m := &Model{Config: c, family: families[c.Type], net: b.network()}
	m.Tensors, m.Weights, m.Blocks, m.mixtures, m.head, m.memory = b.tensors, b.weights, b.blocks, b.mixtures, b.out, b.memory
	m.paths = b.paths.tensors
	for _, list := range [][]Tensor{m.Tensors, m.paths} {
		for i := range list {
			if p := list[i].Param; p != nil && !p.Weight.Frozen {
				m.Params = append(m.Params, p)
			}
		}
	}
	return m
}

// Forward runs the model on a batch and returns the logits (sequences ×
// labels); of a language model those of the token that follows each sequence
// (sequences × vocabulary). The ids must have passed Check.
func (m *Model) Forward(t *nn.Tape, in *Input) *nn.Tensor {
	m.output = Output{}
	m.ForwardAll(t, in, &m.output)
	return m.output.Logits
}

// ForwardAll is Forward with the hidden states that out asks for.
func (m *Model) ForwardAll(t *nn.Tape, in *Input, out *Output) {
	ids, offsets := m.stream(in)
	m.rows = m.Config.rowsRead(m.rows[:0], ids, offsets)
	out.Logits = m.head.logits(t, m.states(t, in, out))
}

// Loss runs the model on a batch and returns the loss of its head, whose
// gradient it sets when the tape records: of a classifier or a regression that
// of nn.Tape.Loss on the labels, of a language model that of
// nn.Tape.VocabularyLoss on the batch's targets.
func (m *Model) Loss(t *nn.Tape, kind nn.Loss, in *Input, labels []float32) float64 {
	loss := m.headLoss(t, kind, in, labels)
	if m.RouterLosses {
		loss += m.routerLosses(t)
	}
	return loss
}

func (m *Model) headLoss(t *nn.Tape, kind nn.Loss, in *Input, labels []float32) float64 {
	if m.Config.Head != LanguageModel {
		return t.Loss(kind, m.Forward(t, in), labels)
	}
	return t.VocabularyLoss(kind, m.targetStates(t, in), m.head.out.W, m.Config.LogitScale, m.Config.LogitCap, m.targets)
}

// targetStates returns the last states of the rows that have a target, and notes these.
func (m *Model) targetStates(t *nn.Tape, in *Input) *nn.Tensor {
	m.output = Output{}
	m.rows, m.targets = m.rows[:0], m.targets[:0]
	for i, id := range in.Targets {
		if id >= 0 {
			m.rows, m.targets = append(m.rows, int32(i)), append(m.targets, id)
		}
	}
	return m.states(t, in, &m.output)
}

// Distill is Loss with a teacher of the same head, whose pass runs on a tape of its own:
// nn.Tape.Distill of the labels, or of a language model nn.Tape.DistillVocabulary.
func (m *Model) Distill(t *nn.Tape, kind nn.Loss, in *Input, labels []float32, teacher *Model, theirs *nn.Tape, weight, temperature float64) float64 {
	if m.Config.Head != LanguageModel {
		logits := teacher.Forward(theirs, in)
		return t.Distill(kind, m.Forward(t, in), logits, labels, weight, temperature)
	}
	m.teacher = nn.VocabularyTeacher{X: teacher.targetStates(theirs, in), W: teacher.head.out.W, Scale: teacher.Config.LogitScale, Softcap: teacher.Config.LogitCap,
		Weight: weight, Temperature: temperature}
	return t.DistillVocabulary(m.targetStates(t, in), m.head.out.W, m.Config.LogitScale, m.Config.LogitCap, m.targets, &m.teacher)
}

// states returns the last state of m.rows.
func (m *Model) states(t *nn.Tape, in *Input, out *Output) *nn.Tensor {
	out.Hidden = out.Hidden[:0]
	s := m.net.embed(t, in)
	out.keep(t, s.X)
	for _, x := range m.mixtures {
		x.kept = nil
	}
	for i := range m.Depth() {
		if i == m.Depth()-1 && !out.AllTokens && !m.RouterLosses {
			return m.net.layer(t, i, s, in, m.rows).X
		}
		if m.recompute && t.Train {
			s = m.layerAgain(t, i, s, in)
		} else {
			s = m.net.layer(t, i, s, in, nil)
		}
		out.keep(t, s.X)
	}
	return t.Rows(s.X, m.rows)
}

// layerAgain is a layer that the backward pass runs again. What the routers' losses read
// of it is made before it, and so outlives it.
func (m *Model) layerAgain(t *nn.Tape, i int, s State, in *Input) State {
	if x := m.net.(*stack).layers[i].experts; x != nil && m.RouterLosses {
		x.kept = t.New(s.X.Rows, x.Experts)
	}
	return State{X: t.Recompute(s.X, func(x *nn.Tensor) *nn.Tensor { return m.net.layer(t, i, State{X: x}, in, nil).X })}
}

// Recompute has training passes keep, of each layer but the last, its input alone, and
// run the layer once more for its gradients: memory for long sequences, at the price of
// a forward pass. The gradients are the same to the last bit.
func (m *Model) Recompute(on bool) error {
	if _, ok := m.net.(*stack); !ok {
		return fmt.Errorf("recompute: expected an encoder or a decoder, found a %s", m.Config.Type)
	}
	m.recompute = on
	return nil
}

// Depth is the number of layers, an encoder's and a decoder's together.
func (m *Model) Depth() int { return m.Config.Depth() }

// Embed returns the state that enters layer 0.
func (m *Model) Embed(t *nn.Tape, in *Input) State { return m.net.embed(t, in) }

// Layer returns the state after layer i, given that before it.
func (m *Model) Layer(t *nn.Tape, i int, s State, in *Input) State {
	return m.net.layer(t, i, s, in, nil)
}

// Check tells whether a batch fits the model: every id inside its table, no
// sequence empty or longer than the positions, and a target or none for every
// token.
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
		if m.Config.usesTypes() && (id < 0 || int(id) >= m.Config.Types) {
			return fmt.Errorf("token %d: expected a token type below %d, found %d", i, m.Config.Types, id)
		}
	}
	if err := m.checkDecoder(in); err != nil {
		return err
	}
	if tokens, _ := m.stream(in); in.Targets != nil && len(in.Targets) != len(tokens) {
		return fmt.Errorf("expected a target or none for each of %d tokens, found %d", len(tokens), len(in.Targets))
	}
	for i, id := range in.Targets {
		if id < -1 || int(id) >= m.Config.Vocab {
			return fmt.Errorf("target %d: expected an id below the vocabulary's %d or -1, found %d", i, m.Config.Vocab, id)
		}
	}
	return nil
}

// checkDecoder is Check for the decoder's tokens, where there are any.
func (m *Model) checkDecoder(in *Input) error {
	if in.DecoderOffsets == nil {
		return nil
	}
	if found, want := len(in.DecoderOffsets), len(in.Offsets); found != want {
		return fmt.Errorf("decoder: expected tokens for each of %d sequences, found %d", want-1, found-1)
	}
	for i, id := range in.DecoderIDs {
		if id < 0 || int(id) >= m.Config.Vocab {
			return fmt.Errorf("decoder's token %d: expected an id below the vocabulary's %d, found %d", i, m.Config.Vocab, id)
		}
	}
	for i := range len(in.DecoderOffsets) - 1 {
		if n := int(in.DecoderOffsets[i+1] - in.DecoderOffsets[i]); n < 1 || n > m.MaxLength() {
			return fmt.Errorf("decoder's sequence %d: expected 1 to %d tokens, found %d", i, m.MaxLength(), n)
		}
	}
	return nil
}

// MaxLength is the largest number of tokens of a sequence.
func (m *Model) MaxLength() int { return m.Config.MaxLength() }

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
