package tokenize

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// unigram takes the split of a piece with the largest sum of token scores
// (Kudo 2018), found by a forward pass over the piece's characters. A character
// that no token covers costs the lowest score less unknownPenalty.
type unigram struct {
	vocab   *trie
	scores  []float64
	unk     int32 // -1: the vocabulary has none
	unkCost float64
	bytes   *byteTokens // nil: no fallback
}

const unknownPenalty = 10

// scored is one entry of a Unigram vocabulary; its row is its id.
type scored struct {
	token string
	score float64
}

func newUnigram(vocab []scored, unk int32, byteFallback bool) (*unigram, error) {
	m := &unigram{vocab: newTrie(), unk: unk, scores: make([]float64, len(vocab))}
	lowest := math.Inf(1)
	byToken := make(map[string]int32, len(vocab))
	for i, v := range vocab {
		if math.IsNaN(v.score) || math.IsInf(v.score, 0) {
			return nil, fmt.Errorf("vocab[%d]: expected a finite score, found %v", i, v.score)
		}
		if err := m.vocab.insert(v.token, int32(i)); err != nil {
			return nil, err
		}
		m.scores[i] = v.score
		lowest = min(lowest, v.score)
		byToken[v.token] = int32(i)
	}
	m.unkCost = lowest - unknownPenalty
	if byteFallback {
		m.bytes = newByteTokens(byToken)
	}
	return m, nil
}

func parseUnigram(f *modelFile) (model, map[string]int32, error) {
	list, err := parseScored(f.Vocab)
	if err != nil {
		return nil, nil, err
	}
	unk := int32(-1)
	if f.UnkID != nil {
		if unk = *f.UnkID; unk < 0 || int(unk) >= len(list) {
			return nil, nil, fmt.Errorf("model.unk_id: expected an id below %d, found %d", len(list), unk)
		}
	}
	vocab := make(map[string]int32, len(list))
	for i, v := range list {
		vocab[v.token] = int32(i)
	}
	m, err := newUnigram(list, unk, f.ByteFallback)
	if err != nil {
		return nil, nil, fmt.Errorf("model.%w", err)
	}
	return m, vocab, nil
}

// parseScored reads [["token", score], …].
func parseScored(raw json.RawMessage) ([]scored, error) {
	var rows [][]any
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows) == 0 {
		return nil, errors.New("model.vocab: expected a list of tokens with their scores, found none")
	}
	list := make([]scored, len(rows))
	for i, row := range rows {
		var ok, ok2 bool
		if len(row) == 2 {
			list[i].token, ok = row[0].(string)
			list[i].score, ok2 = row[1].(float64)
		}
		if !ok || !ok2 {
			return nil, fmt.Errorf("model.vocab[%d]: expected a token and its score, found %v", i, row)
		}
	}
	return list, nil
}

// pathNode is the best way to reach one byte position.
type pathNode struct {
	score float64
	from  int
	id    int32 // of the token that ends here; -1: an unknown character
	seen  bool
}

func (m *unigram) encode(piece []byte, s *scratch, ids []int32) []int32 {
	s.path = append(s.path[:0], make([]pathNode, len(piece)+1)...)
	path := s.path
	for at := 0; at < len(piece); {
		_, char := utf8.DecodeRune(piece[at:])
		reach, single := path[at].score, false
		node := uint32(0)
		for i, b := range piece[at:] {
			next, ok := m.vocab.step(node, b)
			if !ok {
				break
			}
			node = next
			if id := m.vocab.ids[node]; id >= 0 {
				relax(&path[at+i+1], pathNode{reach + m.scores[id], at, id, true})
				single = single || i+1 == char
			}
		}
		if !single {
			relax(&path[at+char], pathNode{reach + m.unkCost, at, -1, true})
		}
		at += char
	}
	start := len(ids)
	for end := len(piece); end > 0; {
		n := path[end]
		from := n.from
		if n.id == m.unk {
			n.id = -1
		}
		if n.id >= 0 {
			ids = append(ids, n.id)
		} else {
			for from > 0 && (path[from].id < 0 || path[from].id == m.unk) {
				from = path[from].from // a run of unknown characters is one token
			}
			ids = m.unknown(piece[from:end], ids)
		}
		end = from
	}
	slices.Reverse(ids[start:])
	return ids
}

func relax(n *pathNode, by pathNode) {
	if !n.seen || by.score > n.score {
		*n = by
	}
}

// unknown appends the ids of a stretch that no token covers, last first.
func (m *unigram) unknown(text []byte, ids []int32) []int32 {
	if m.bytes.cover(text) {
		for _, b := range slices.Backward(text) {
			ids = append(ids, m.bytes[b])
		}
		return ids
	}
	if m.unk >= 0 {
		ids = append(ids, m.unk)
	}
	return ids
}
