package task

import (
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

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

// Tokens is the number of tokens of all sequences.
func (b *Batch) Tokens() int { return len(b.IDs) }

// Encoded is a data set tokenized once, in flat arrays: row i has the tokens
// IDs[Offsets[i]:Offsets[i+1]].
type Encoded struct {
	IDs, Types []int32
	Offsets    []int // length n+1
	Labels     []float32
}

// Len is the number of rows.
func (e *Encoded) Len() int { return len(e.Labels) }

// Length is the number of tokens of row i.
func (e *Encoded) Length(i int) int { return e.Offsets[i+1] - e.Offsets[i] }

// Encode tokenizes examples to at most maxLen tokens each (0: no limit), on all
// processors. progress, when not nil, is told now and then how many are done; its
// calls do not overlap. The result does not depend on the number of workers.
func Encode(tok tokenize.Tokenizer, examples []Example, maxLen int, progress func(done, total int)) *Encoded {
	const chunk = 256
	chunks := (len(examples) + chunk - 1) / chunk
	parts := make([]Encoded, chunks)
	var mu sync.Mutex
	done, claimed := 0, 0
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
				p := &parts[c]
				for i := range rows {
					var pair *string
					if rows[i].HasPair {
						pair = &rows[i].Pair
					}
					enc := tok.Encode(rows[i].Text, pair, maxLen)
					p.IDs = append(p.IDs, enc.IDs...)
					p.Types = append(p.Types, enc.Types...)
					p.Offsets = append(p.Offsets, len(p.IDs))
				}
				mu.Lock()
				done += len(rows)
				if progress != nil {
					progress(done, len(examples))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	tokens := 0
	for i := range parts {
		tokens += len(parts[i].IDs)
	}
	e := &Encoded{
		IDs: make([]int32, 0, tokens), Types: make([]int32, 0, tokens),
		Offsets: make([]int, 1, len(examples)+1), Labels: make([]float32, len(examples)),
	}
	for i := range parts {
		for _, end := range parts[i].Offsets {
			e.Offsets = append(e.Offsets, len(e.IDs)+end)
		}
		e.IDs = append(e.IDs, parts[i].IDs...)
		e.Types = append(e.Types, parts[i].Types...)
	}
	for i := range examples {
		e.Labels[i] = examples[i].Label
	}
	return e
}

// Fill lays the given rows out in b, whose memory it uses again: in a steady
// state it allocates nothing.
func (e *Encoded) Fill(b *Batch, rows []int32) {
	b.IDs, b.Types, b.Labels, b.Index = b.IDs[:0], b.Types[:0], b.Labels[:0], b.Index[:0]
	b.Offsets = append(b.Offsets[:0], 0)
	for _, r := range rows {
		from, to := e.Offsets[r], e.Offsets[r+1]
		b.IDs = append(b.IDs, e.IDs[from:to]...)
		b.Types = append(b.Types, e.Types[from:to]...)
		b.Offsets = append(b.Offsets, int32(len(b.IDs)))
		b.Labels = append(b.Labels, e.Labels[r])
		b.Index = append(b.Index, r)
	}
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
// shortest, each batch of up to so many tokens, and at least one row.
func LengthSorted(e *Encoded, tokens int) [][]int32 {
	order := make([]int32, e.Len())
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return e.Length(int(b)) - e.Length(int(a)) })
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
