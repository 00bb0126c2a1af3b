package tokenize

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/graphemes"
)

// charsMap is SentencePiece's precompiled normalization: a double-array trie
// from byte strings to places in a text of NUL-ended replacements.
type charsMap struct {
	units []uint32
	texts []byte
}

func newCharsMap(blob []byte) (*charsMap, error) {
	if len(blob) < 4 {
		return nil, fmt.Errorf("expected the size of a trie, found %d bytes", len(blob))
	}
	size := uint64(binary.LittleEndian.Uint32(blob))
	if size%4 != 0 || size == 0 || size > uint64(len(blob)-4) {
		return nil, fmt.Errorf("expected a trie of at most %d bytes, found a size of %d", len(blob)-4, size)
	}
	m := &charsMap{units: make([]uint32, size/4), texts: blob[4+size:]}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(blob[4+4*i:])
	}
	return m, nil
}

func parsePrecompiled(c component) (normalizer, error) {
	var o struct {
		Type string
		Map  string `json:"precompiled_charsmap"`
	}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	blob, err := base64.StdEncoding.DecodeString(o.Map)
	if err != nil {
		return nil, fmt.Errorf("%s.precompiled_charsmap: expected base64: %w", c.key, err)
	}
	m, err := newCharsMap(blob)
	if err != nil {
		return nil, fmt.Errorf("%s.precompiled_charsmap: %w", c.key, err)
	}
	return m, nil
}

// lookup finds the replacement of the shortest stored prefix of text.
func (m *charsMap) lookup(text []byte) (with []byte, ok bool) {
	unit := m.units[0]
	at := offset(unit)
	for _, c := range text {
		if c == 0 {
			break
		}
		at ^= uint32(c)
		if uint64(at) >= uint64(len(m.units)) {
			break
		}
		if unit = m.units[at]; unit&(1<<31|0xFF) != uint32(c) {
			break
		}
		leaf := unit>>8&1 == 1
		at ^= offset(unit)
		if !leaf {
			continue
		}
		if uint64(at) >= uint64(len(m.units)) {
			break
		}
		start := m.units[at] & (1<<31 - 1)
		if uint64(start) > uint64(len(m.texts)) {
			break
		}
		with = m.texts[start:]
		if end := bytes.IndexByte(with, 0); end >= 0 {
			with = with[:end]
		}
		return with, utf8.Valid(with)
	}
	return nil, false
}

// offset is the distance to the children that a unit of the double array holds.
func offset(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }

// normalize looks short grapheme clusters up as a whole, else each character.
func (m *charsMap) normalize(dst, src []byte) []byte {
	clusters := graphemes.FromBytes(src)
	for clusters.Next() {
		cluster := clusters.Value()
		if len(cluster) < 6 {
			if with, ok := m.lookup(cluster); ok {
				dst = append(dst, with...)
				continue
			}
		}
		for len(cluster) > 0 {
			_, n := utf8.DecodeRune(cluster)
			if with, ok := m.lookup(cluster[:n]); ok {
				dst = append(dst, with...)
			} else {
				dst = append(dst, cluster[:n]...)
			}
			cluster = cluster[n:]
		}
	}
	return dst
}
