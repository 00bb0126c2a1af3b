package model

import (
	"fmt"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// encoder is a network whose decoder reads what an encoder made of the prompt.
type encoder interface {
	// encode adds the encoder's output to the cache and returns the first token
	// that the decoder is to read.
	encode(t *nn.Tape, in *Input, c *Cache) int32
	// decoderInput returns the decoder's tokens, also where the batch has none.
	decoderInput(in *Input) (ids, offsets []int32)
}

// Cache is what a language model keeps of sequences that it writes, so that each
// further token costs one token's work.
type Cache struct {
	self  *nn.Cache // of the tokens
	cross *nn.Cache // of the encoder's output; nil in a plain decoder

	batch    []int32 // the sequences of the batch under way
	encoders []int32 // their numbers in cross
	source   []int32 // by sequence, its number in cross
	pasts    []nn.Past
	in       Input
}

// NewCache returns an empty cache.
func (m *Model) NewCache() (*Cache, error) {
	if m.Config.Head != LanguageModel {
		return nil, fmt.Errorf("expected a language model, found a %s model with another head", m.Config.Type)
	}
	c := &Cache{}
	m.net.cache(c)
	c.pasts = make([]nn.Past, 2*m.Depth())
	return c, nil
}

// Begin begins a sequence with a prompt, which must have passed Check. It
// returns the sequence's number and the tokens that Next is to read first: the
// prompt, or in an encoder–decoder, whose encoder has read the prompt, the
// decoder's first token.
func (m *Model) Begin(t *nn.Tape, c *Cache, prompt []int32) (sequence int32, first []int32) {
	s := c.self.New()
	for len(c.source) <= int(s) {
		c.source = append(c.source, -1)
	}
	if c.cross == nil {
		return s, prompt
	}
	c.source[s] = c.cross.New()
	in := Input{IDs: prompt, Offsets: []int32{0, int32(len(prompt))}}
	c.setBatch(s)
	c.cross.Grow(c.source[s], len(prompt))
	id := m.net.(encoder).encode(t, &in, c)
	c.cross.Grown(c.source[s])
	return s, []int32{id}
}

// Next runs the model on further tokens of sequences, ids[offsets[i]:offsets[i+1]]
// being those of sequences[i], and returns the logits of the token that follows
// each (sequences × vocabulary). No sequence may get longer than MaxLength.
func (m *Model) Next(t *nn.Tape, c *Cache, sequences, ids, offsets []int32) *nn.Tensor {
	c.setBatch(sequences...)
	c.in = Input{IDs: ids, Offsets: offsets, past: c}
	if c.cross != nil {
		c.in = Input{DecoderIDs: ids, DecoderOffsets: offsets, past: c}
	}
	for i, s := range sequences {
		c.self.Grow(s, int(offsets[i+1]-offsets[i]))
	}
	logits := m.Forward(t, &c.in)
	for _, s := range sequences {
		c.self.Grown(s)
	}
	return logits
}

func (c *Cache) setBatch(sequences ...int32) {
	c.batch = append(c.batch[:0], sequences...)
	c.encoders = c.encoders[:0]
	if c.cross != nil {
		for _, s := range sequences {
			c.encoders = append(c.encoders, c.source[s])
		}
	}
}

// Fork begins a sequence with the tokens of another.
func (c *Cache) Fork(from int32) int32 {
	s := c.self.Fork(from)
	for len(c.source) <= int(s) {
		c.source = append(c.source, -1)
	}
	if c.cross != nil {
		c.source[s] = c.cross.Fork(c.source[from])
	}
	return s
}

// Free ends a sequence; its number may be given out again.
func (c *Cache) Free(s int32) {
	c.self.Free(s)
	if c.cross != nil {
		c.cross.Free(c.source[s])
	}
}

// Truncate takes all tokens of a sequence away but the first, of which there must be as
// many; what an encoder read of it stays.
func (c *Cache) Truncate(s int32, tokens int) { c.self.Truncate(s, tokens) }

// Len is the number of tokens that the model has read of a sequence, without an
// encoder's.
func (c *Cache) Len(s int32) int { return c.self.Len(s) }

// tokens is the number of tokens before those of sequence i of the batch; c may
// be nil.
func (c *Cache) tokens(i int) int32 {
	if c == nil {
		return 0
	}
	return int32(c.self.Len(c.batch[i]))
}

// layer is what layer i of a decoder attends to besides the batch; c may be nil.
func (c *Cache) layer(i int) *nn.Past {
	if c == nil {
		return nil
	}
	p := &c.pasts[2*i]
	*p = nn.Past{Cache: c.self, Layer: i, Sequences: c.batch}
	return p
}

// encoded is what layer i of a decoder attends to of the encoder's output; c may
// be nil.
func (c *Cache) encoded(i int) *nn.Past {
	if c == nil {
		return nil
	}
	p := &c.pasts[2*i+1]
	*p = nn.Past{Cache: c.cross, Layer: i, Sequences: c.encoders}
	return p
}

// Pack lays all matrices out as products read them, which many batches or products
// with few rows repay: until Unpack inference uses the values of now, at the
// precision given. It takes the memory of the weights again, most of them the
// experts' in a model that has some; those are left out unless asked for.
func (m *Model) Pack(pool *kernel.Pool, prec kernel.Precision, experts bool) {
	left := map[*nn.Weight]bool{}
	if !experts {
		for _, x := range m.mixtures {
			for _, e := range x.experts {
				for _, l := range e.Linears() {
					left[l.W] = true
				}
			}
		}
	}
	for _, w := range m.Weights {
		if w.Rows > 1 && w.Touched == nil && !left[w] { // no vector, nor only an embedding
			w.Pack(pool, prec)
		}
	}
}

// Unpack ends what Pack began.
func (m *Model) Unpack() {
	for _, w := range m.Weights {
		w.Unpack()
	}
}
