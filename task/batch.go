package task

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"mlpfusion/chat"
	"mlpfusion/tokenize"
)

// Batch is the tokens of n sequences laid end to end, without padding: sequence
// i is IDs[Offsets[i]:Offsets[i+1]].
type Batch struct {
	IDs, Types []int32
	Offsets    []int32   // length n+1, Offsets[0] = 0
	Labels     []float32 // length n: class indices or regression targets
	Index      []int32   // length n: rows of the data set

	// Targets are, for language modelling, the ids to be predicted at each token
	// (with a decoder at each of its tokens), -1 where none is.
	Targets []int32
	// DecoderIDs and DecoderOffsets are the decoder's tokens, as IDs and Offsets,
	// for encoder–decoders.
	DecoderIDs, DecoderOffsets []int32
}

// Len is the number of sequences.
func (b *Batch) Len() int { return len(b.Index) }

// Tokens is the number of tokens of all sequences, an encoder's and a decoder's
// together.
func (b *Batch) Tokens() int { return len(b.IDs) + len(b.DecoderIDs) }

// Encoded is a data set tokenized once, in flat arrays: row i has the tokens
// IDs[Offsets[i]:Offsets[i+1]].
type Encoded struct {
	IDs, Types []int32
	Offsets    []int          // length n+1
	Labels     []float32      // length n, of classification and regression
	Targets    []int32        // as Batch's, of language modelling
	Digests    Digests        // of the rows' examples, where they are to be recorded
	Cut        *Cut           // of conversations: those that were too long
	Template   *chat.Template // by which these are written
	// LabelWords are, where labels are written as words, the tokens that the words
	// begin with, by class.
	LabelWords []int32
	// DecoderIDs are the decoder's tokens, as IDs, for encoder–decoders.
	DecoderIDs     []int32
	DecoderOffsets []int
}

// Len is the number of rows.
func (e *Encoded) Len() int { return len(e.Offsets) - 1 }

// Tokens is the number of tokens of all rows, an encoder's and a decoder's
// together.
func (e *Encoded) Tokens() int { return len(e.IDs) + len(e.DecoderIDs) }

// Length is the number of tokens of row i, an encoder's and a decoder's together.
func (e *Encoded) Length(i int) int {
	n := e.Offsets[i+1] - e.Offsets[i]
	if e.DecoderOffsets != nil {
		n += e.DecoderOffsets[i+1] - e.DecoderOffsets[i]
	}
	return n
}

// Encode tokenizes examples to at most maxLen tokens each (0: no limit), on all
// processors. progress, when not nil, is told now and then how many are done; its
// calls do not overlap. The result does not depend on the number of workers.
//
// A text that makes no token, as an empty one does where the tokenizer adds none of
// its own, is an error, and so is one with a token beyond the vocab rows of a
// model: it has nothing to say of them.
func Encode(tok tokenize.Tokenizer, examples []Example, vocab, maxLen int, progress func(done, total int)) (*Encoded, error) {
	return encode(examples, vocab, progress, func(e *Example, to *Encoded) error {
		var pair *string
		if e.HasPair {
			pair = &e.Pair
		}
		enc := tok.Encode(e.Text, pair, maxLen)
		to.IDs = append(to.IDs, enc.IDs...)
		to.Types = append(to.Types, enc.Types...)
		to.Offsets = append(to.Offsets, len(to.IDs))
		to.Labels = append(to.Labels, e.Label)
		return nil
	})
}

// encode lays the rows that add makes of each example end to end. An example of which it
// makes none is left out.
func encode(examples []Example, vocab int, progress func(done, total int), add func(e *Example, to *Encoded) error) (*Encoded, error) {
	const chunk = 256
	chunks := (len(examples) + chunk - 1) / chunk
	parts := make([]Encoded, chunks)
	var mu sync.Mutex
	done, claimed := 0, 0
	wrong, why := len(examples), error(nil) // the first example that a model cannot read
	var wg sync.WaitGroup
	for range min(chunks, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for {
				mu.Lock()
				c := claimed
				claimed++
				mu.Unlock()
				if c >= chunks {
					return
				}
				rows := examples[c*chunk : min((c+1)*chunk, len(examples))]
				first, what := len(examples), error(nil)
				for i := range rows {
					before, ids, targets := len(parts[c].Offsets), len(parts[c].IDs), len(parts[c].Targets)
					err := add(&rows[i], &parts[c])
					if err == nil && len(parts[c].Offsets) > before {
						err = Readable(parts[c].IDs[ids:], vocab)
					}
					if err == nil && len(parts[c].Targets) > targets {
						err = Readable(parts[c].Targets[targets:], vocab)
					}
					if err != nil && what == nil {
						first, what = c*chunk+i, err
					}
				}
				mu.Lock()
				if first < wrong {
					wrong, why = first, what
				}
				done += len(rows)
				if progress != nil {
					progress(done, len(examples))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if wrong < len(examples) {
		x := examples[wrong]
		place := cmp.Or(x.Place, fmt.Sprintf("example %d", wrong+1))
		if x.Turns == nil {
			why = fmt.Errorf("%w in %.60q", why, cmp.Or(x.Text, x.Target))
		}
		return nil, fmt.Errorf("%s: %w", place, why)
	}
	tokens := 0
	for i := range parts {
		tokens += len(parts[i].IDs)
	}
	e := &Encoded{IDs: make([]int32, 0, tokens), Offsets: make([]int, 1, len(examples)+1)}
	if chunks > 0 && parts[0].DecoderOffsets != nil {
		e.DecoderOffsets = make([]int, 1, len(examples)+1)
	}
	for i := range parts {
		p := &parts[i]
		for _, end := range p.Offsets {
			e.Offsets = append(e.Offsets, len(e.IDs)+end)
		}
		for _, end := range p.DecoderOffsets {
			e.DecoderOffsets = append(e.DecoderOffsets, len(e.DecoderIDs)+end)
		}
		e.DecoderIDs = append(e.DecoderIDs, p.DecoderIDs...)
		e.IDs = append(e.IDs, p.IDs...)
		e.Types = append(e.Types, p.Types...)
		e.Labels = append(e.Labels, p.Labels...)
		e.Targets = append(e.Targets, p.Targets...)
	}
	return e, nil
}

// Readable reports a sequence that a model of this many rows cannot read: one of no
// tokens, or with one beyond its rows.
func Readable(ids []int32, vocab int) error {
	if len(ids) == 0 {
		return errors.New("expected at least one token, found none")
	}
	for _, id := range ids {
		if int(id) >= vocab {
			return fmt.Errorf("expected tokens below the model's %d entries, found %d", vocab, id)
		}
	}
	return nil
}

// Fill lays the given rows out in b, whose memory it uses again: in a steady
// state it allocates nothing.
func (e *Encoded) Fill(b *Batch, rows []int32) {
	b.IDs, b.Types, b.Labels, b.Targets, b.Index = b.IDs[:0], b.Types[:0], b.Labels[:0], b.Targets[:0], b.Index[:0]
	b.Offsets = append(b.Offsets[:0], 0)
	b.DecoderIDs = b.DecoderIDs[:0]
	if e.DecoderOffsets != nil {
		b.DecoderOffsets = append(b.DecoderOffsets[:0], 0)
	}
	for _, r := range rows {
		from, to := e.Offsets[r], e.Offsets[r+1]
		b.IDs = append(b.IDs, e.IDs[from:to]...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
		b.Index = append(b.Index, r)
		if e.Types != nil {
			b.Types = append(b.Types, e.Types[from:to]...)
		}
		if e.Labels != nil {
			b.Labels = append(b.Labels, e.Labels[r])
		}
		if e.DecoderOffsets != nil {
			from, to = e.DecoderOffsets[r], e.DecoderOffsets[r+1]
			b.DecoderIDs = append(b.DecoderIDs, e.DecoderIDs[from:to]...)
			b.DecoderOffsets = append(b.DecoderOffsets, int32(len(b.DecoderIDs)))
		}
		if e.Targets != nil {
			b.Targets = append(b.Targets, e.Targets[from:to]...)
		}
	}
	if e.Types == nil {
		b.Types = nil
	}
}

// Subset returns the given rows, in their order.
func (e *Encoded) Subset(rows []int32) *Encoded {
	var b Batch
	e.Fill(&b, rows)
	s := &Encoded{IDs: b.IDs, Types: b.Types, Labels: b.Labels, Targets: b.Targets, DecoderIDs: b.DecoderIDs, Offsets: widen(b.Offsets)}
	if e.DecoderOffsets != nil {
		s.DecoderOffsets = widen(b.DecoderOffsets)
	}
	return s
}

func widen(offsets []int32) []int {
	w := make([]int, len(offsets))
	for i, o := range offsets {
		w[i] = int(o)
	}
	return w
}

// Few returns the first n of a seeded order of items; all, as they are, when n is
// 0 or there are no more.
func Few[T any](items []T, n int, seed uint64) []T {
	if n <= 0 || n >= len(items) {
		return items
	}
	few := make([]T, n)
	for i, at := range Shuffle(seed, 0, len(items))[:n] {
		few[i] = items[at]
	}
	return few
}

// Shuffle is the order of n rows in one epoch: a Fisher-Yates shuffle driven by
// PCG, the same for the same seed and epoch on every machine.
func Shuffle(seed uint64, epoch, n int) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	random := rand.NewPCG(seed, uint64(epoch))
	for i := n - 1; i > 0; i-- {
		j, _ := bits.Mul64(random.Uint64(), uint64(i+1)) // in [0, i]
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// LengthSorted returns batches for evaluation: all rows from the longest to the
// shortest, each batch of up to this many tokens, and at least one row.
func LengthSorted(e *Encoded, tokens int) [][]int32 {
	order := longestFirst(e)
	var batches [][]int32
	for from := 0; from < len(order); {
		to, sum := from, 0
		for to < len(order) && (to == from || sum+e.Length(int(order[to])) <= tokens) {
			sum += e.Length(int(order[to]))
			to++
		}
		batches = append(batches, order[from:to:to])
		from = to
	}
	return batches
}

// EqualParts returns all rows from the longest to the shortest in up to this many
// batches of as equal numbers of tokens as whole rows allow.
func EqualParts(e *Encoded, parts int) [][]int32 {
	order := longestFirst(e)
	var batches [][]int32
	from, sum := 0, 0
	for i, r := range order {
		sum += e.Length(int(r))
		if sum*parts >= (len(batches)+1)*e.Tokens() || i == len(order)-1 {
			batches = append(batches, order[from:i+1:i+1])
			from = i + 1
		}
	}
	return batches
}

func longestFirst(e *Encoded) []int32 {
	order := make([]int32, e.Len())
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return e.Length(int(b)) - e.Length(int(a)) })
	return order
}
