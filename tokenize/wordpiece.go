package tokenize

import (
	"errors"
	"unicode/utf8"
)

// wordPiece splits a word into the longest vocabulary entries from left to
// right (Wu et al. 2016); those after the first carry a prefix ("##"). A word
// that cannot be split so, or is too long, is one unknown token.
type wordPiece struct {
	vocab    *trie
	cont     uint32 // the node below which continuations lie
	hasCont  bool
	unk      int32
	maxRunes int
}

func newWordPiece(vocab map[string]int32, unk int32, prefix string, maxRunes int) (*wordPiece, error) {
	m := &wordPiece{vocab: newTrie(), unk: unk, maxRunes: maxRunes, hasCont: true}
	for s, id := range vocab {
		if err := m.vocab.insert(s, id); err != nil {
			return nil, err
		}
	}
	for i := range len(prefix) {
		if m.cont, m.hasCont = m.vocab.step(m.cont, prefix[i]); !m.hasCont {
			break
		}
	}
	return m, nil
}

func parseWordPiece(f *modelFile) (model, map[string]int32, error) {
	vocab, unk, err := f.vocab()
	if err != nil {
		return nil, nil, err
	}
	if unk < 0 {
		return nil, nil, errors.New("model.unk_token: expected a token of the vocabulary, found none")
	}
	prefix, maxRunes := "##", 100
	if f.Prefix != nil {
		prefix = *f.Prefix
	}
	if f.MaxRunes != nil {
		maxRunes = *f.MaxRunes
	}
	m, err := newWordPiece(vocab, unk, prefix, maxRunes)
	return m, vocab, err
}

func (m *wordPiece) encode(word []byte, _ *scratch, ids []int32) []int32 {
	if len(word) > m.maxRunes && utf8.RuneCount(word) > m.maxRunes {
		return append(ids, m.unk)
	}
	start, node := len(ids), uint32(0)
	for len(word) > 0 {
		id, n := m.vocab.longest(node, word)
		if n == 0 {
			return append(ids[:start], m.unk)
		}
		ids = append(ids, id)
		word = word[n:]
		if node = m.cont; !m.hasCont && len(word) > 0 {
			return append(ids[:start], m.unk)
		}
	}
	return ids
}
