package tokenize

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// bpe joins the characters of a piece by the ranked merges of its vocabulary
// (Sennrich et al. 2016): always the pair of lowest rank, the leftmost of
// equals.
type bpe struct {
	runes   map[rune]int32 // one-character tokens …
	low     [512]int32     // … and those of the byte-level alphabet, -1: none
	merges  map[uint64]merge
	words   map[string]int32 // whole tokens, only with ignoreMerges
	bytes   *byteTokens      // nil: no fallback
	unk     int32            // -1: unknown characters are dropped
	fuseUnk bool
}

type merge struct{ rank, id int32 }

func pairKey(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

type bpeOptions struct {
	unk                               int32
	fuseUnk, byteFallback, wholeWords bool
}

// newBPE checks that both parts of each merge, and their concatenation, are in
// the vocabulary.
func newBPE(vocab map[string]int32, merges [][2]string, o bpeOptions) (*bpe, error) {
	m := &bpe{runes: map[rune]int32{}, merges: make(map[uint64]merge, len(merges)), unk: o.unk, fuseUnk: o.fuseUnk}
	fill(m.low[:], -1)
	for s, id := range vocab {
		if r, n := utf8.DecodeRuneInString(s); n == len(s) && n > 0 {
			if int(r) < len(m.low) {
				m.low[r] = id
			}
			m.runes[r] = id
		}
	}
	for i, p := range merges {
		a, ok := vocab[p[0]]
		b, ok2 := vocab[p[1]]
		joined, ok3 := vocab[p[0]+p[1]]
		for j, found := range []bool{ok, ok2, ok3} {
			if !found {
				return nil, fmt.Errorf("merge %d: expected tokens of the vocabulary, found %q",
					i, []string{p[0], p[1], p[0] + p[1]}[j])
			}
		}
		m.merges[pairKey(a, b)] = merge{int32(i), joined}
	}
	if o.wholeWords {
		m.words = vocab
	}
	if o.byteFallback {
		m.bytes = newByteTokens(vocab)
	}
	return m, nil
}

func parseBPE(f *modelFile) (model, map[string]int32, error) {
	vocab, unk, err := f.vocab()
	if err != nil {
		return nil, nil, err
	}
	for key, v := range map[string]*string{"continuing_subword_prefix": f.Prefix, "end_of_word_suffix": f.Suffix} {
		if v != nil && *v != "" {
			return nil, nil, fmt.Errorf("model.%s: expected none with BPE, found %q", key, *v)
		}
	}
	if f.Dropout != nil && *f.Dropout != 0 {
		return nil, nil, fmt.Errorf("model.dropout: expected none, as leaving merges out at random gives a text other ids each time, found %v", *f.Dropout)
	}
	merges, err := parseMerges(f.Merges)
	if err != nil {
		return nil, nil, err
	}
	m, err := newBPE(vocab, merges, bpeOptions{unk, f.FuseUnk, f.ByteFallback, f.IgnoreMerges})
	if err != nil {
		return nil, nil, fmt.Errorf("model.merges: %w", err)
	}
	return m, vocab, nil
}

// parseMerges reads ["a b", …] or [["a", "b"], …].
func parseMerges(raw json.RawMessage) ([][2]string, error) {
	var lines []string
	if json.Unmarshal(raw, &lines) == nil {
		merges := make([][2]string, len(lines))
		for i, l := range lines {
			parts := strings.Split(l, " ")
			if len(parts) != 2 {
				return nil, fmt.Errorf("model.merges[%d]: expected two tokens with a space between, found %q", i, l)
			}
			merges[i] = [2]string(parts)
		}
		return merges, nil
	}
	var pairs [][]string
	if err := json.Unmarshal(raw, &pairs); err != nil {
		return nil, fmt.Errorf("model.merges: expected pairs of tokens: %w", err)
	}
	merges := make([][2]string, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return nil, fmt.Errorf("model.merges[%d]: expected two tokens, found %q", i, p)
		}
		merges[i] = [2]string(p)
	}
	return merges, nil
}

// symbol is one token of the piece so far, in a doubly linked list.
type symbol struct {
	id         int32
	prev, next int32 // -1: none
	gone       bool  // joined to the symbol before it
}

// candidate is a pair that may be merged: the symbol at pos with the one after.
type candidate struct{ rank, pos, id int32 }

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.pos < d.pos
}

type bpeScratch struct {
	symbols []symbol
	heap    []candidate
}

func (s *bpeScratch) add(id int32) {
	n := int32(len(s.symbols))
	s.symbols = append(s.symbols, symbol{id: id, prev: n - 1, next: n + 1})
}

func (m *bpe) encode(piece []byte, sc *scratch, ids []int32) []int32 {
	if id, ok := m.words[string(piece)]; ok {
		return append(ids, id)
	}
	s := &sc.bpe
	m.characters(piece, s)
	if len(s.symbols) == 0 {
		return ids
	}
	s.symbols[len(s.symbols)-1].next = -1
	for i := range len(s.symbols) - 1 {
		m.suggest(s, int32(i))
	}
	for len(s.heap) > 0 {
		c := s.pop()
		left := &s.symbols[c.pos]
		if left.gone || left.next < 0 {
			continue
		}
		right := &s.symbols[left.next]
		if now, ok := m.merges[pairKey(left.id, right.id)]; !ok || now.id != c.id {
			continue // the pair changed since it was suggested
		}
		left.id, left.next, right.gone = c.id, right.next, true
		if right.next >= 0 {
			s.symbols[right.next].prev = c.pos
			m.suggest(s, c.pos)
		}
		if left.prev >= 0 {
			m.suggest(s, left.prev)
		}
	}
	for i := int32(0); i >= 0; i = s.symbols[i].next {
		ids = append(ids, s.symbols[i].id)
	}
	return ids
}

// characters fills s with the tokens of single characters. An unknown character
// becomes its bytes' tokens when the vocabulary has them all, else the unknown
// token (one for a run of them with fuseUnk), else nothing.
func (m *bpe) characters(piece []byte, s *bpeScratch) {
	s.symbols, s.heap = s.symbols[:0], s.heap[:0]
	unknown := false // an unknown token is due before the next known one
	for i := 0; i < len(piece); {
		r, n := utf8.DecodeRune(piece[i:])
		char := piece[i : i+n]
		i += n
		id := int32(-1)
		if int(r) < len(m.low) {
			id = m.low[r]
		} else if v, ok := m.runes[r]; ok {
			id = v
		}
		switch {
		case id >= 0:
			if unknown {
				s.add(m.unk)
				unknown = false
			}
			s.add(id)
		case m.bytes.cover(char):
			for _, b := range char {
				s.add(m.bytes[b])
			}
		case m.unk >= 0:
			if unknown && !m.fuseUnk {
				s.add(m.unk)
			}
			unknown = true
		}
	}
	if unknown {
		s.add(m.unk)
	}
}

// suggest queues the pair that begins at pos when it has a merge.
func (m *bpe) suggest(s *bpeScratch, pos int32) {
	left := &s.symbols[pos]
	mg, ok := m.merges[pairKey(left.id, s.symbols[left.next].id)]
	if !ok {
		return
	}
	h := append(s.heap, candidate{mg.rank, pos, mg.id})
	i := len(h) - 1
	for i > 0 && h[i].before(h[(i-1)/2]) {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		i = (i - 1) / 2
	}
	s.heap = h
}

func (s *bpeScratch) pop() candidate {
	h := s.heap
	top, n := h[0], len(h)-1
	h[0] = h[n]
	h = h[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(h[i]) {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	s.heap = h
	return top
}

// byteTokens are the tokens <0x00> to <0xFF> that spell unknown characters; -1
// where the vocabulary has none.
type byteTokens [256]int32

func newByteTokens(vocab map[string]int32) *byteTokens {
	t := new(byteTokens)
	for b := range t {
		t[b] = -1
		if id, ok := vocab[fmt.Sprintf("<0x%02X>", b)]; ok {
			t[b] = id
		}
	}
	return t
}

// cover says whether there are tokens for all bytes of text.
func (t *byteTokens) cover(text []byte) bool {
	if t == nil {
		return false
	}
	for _, b := range text {
		if t[b] < 0 {
			return false
		}
	}
	return true
}
