package tokenize

import (
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// spieceModel is what we need of a SentencePiece model file (ModelProto of
// sentencepiece_model.proto).
type spieceModel struct {
	pieces   []scored
	kinds    []uint64 // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
	unigram  bool
	unk      int32
	charsMap []byte
}

// parseSpiece reads the protobuf message field by field; fields that it does
// not know are skipped, as protobuf asks.
func parseSpiece(data []byte) (*spieceModel, error) {
	m := &spieceModel{unigram: true}
	err := eachField(data, func(num protowire.Number, bytes []byte, _ uint64) error {
		switch num {
		case 1: // pieces
			p, kind := scored{}, uint64(1)
			err := eachField(bytes, func(num protowire.Number, b []byte, v uint64) error {
				switch num {
				case 1:
					p.token = string(b)
				case 2:
					p.score = float64(math.Float32frombits(uint32(v)))
				case 3:
					kind = v
				}
				return nil
			})
			if err == nil && (p.token == "" || !utf8.ValidString(p.token)) {
				err = fmt.Errorf("expected a token in UTF-8, found %.80q", p.token)
			}
			if err != nil {
				return fmt.Errorf("pieces[%d]: %w", len(m.pieces), err)
			}
			m.pieces = append(m.pieces, p)
			m.kinds = append(m.kinds, kind)
		case 2: // trainer_spec
			return eachField(bytes, func(num protowire.Number, _ []byte, v uint64) error {
				switch num {
				case 3:
					m.unigram = v == 1
				case 40:
					m.unk = int32(v)
				}
				return nil
			})
		case 3: // normalizer_spec
			return eachField(bytes, func(num protowire.Number, b []byte, _ uint64) error {
				if num == 2 {
					m.charsMap = b
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(m.pieces) == 0 || len(m.pieces) > maxID {
		return nil, fmt.Errorf("pieces: expected 1 to %d pieces, found %d", maxID, len(m.pieces))
	}
	return m, nil
}

// eachField walks over a protobuf message: bytes is set for length-delimited
// fields, v for the others.
func eachField(data []byte, f func(num protowire.Number, bytes []byte, v uint64) error) error {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("expected a SentencePiece model (protobuf): %w", protowire.ParseError(n))
		}
		data = data[n:]
		var b []byte
		var v uint64
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var v32 uint32
			v32, n = protowire.ConsumeFixed32(data)
			v = uint64(v32)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(num, kind, data)
		}
		if n < 0 {
			return fmt.Errorf("expected a SentencePiece model (protobuf), field %d: %w", num, protowire.ParseError(n))
		}
		if err := f(num, b, v); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// newT5 builds the tokenizer that transformers builds from T5's spiece.model:
// the model's own character map, '▁' for spaces and before each word, and
// </s> at the end of each text. extra sentinels <extra_id_…> follow the pieces,
// the last number first.
func newT5(m *spieceModel, pad, eos string, extra int, c *config) (*tokenizer, error) {
	if !m.unigram {
		return nil, fmt.Errorf("trainer_spec.model_type: expected a unigram model, as T5's, found another")
	}
	t := &tokenizer{pad: -1}
	if len(m.charsMap) > 0 {
		c, err := newCharsMap(m.charsMap)
		if err != nil {
			return nil, fmt.Errorf("normalizer_spec.precompiled_charsmap: %w", err)
		}
		t.normalizers = []normalizer{c}
	}
	if m.unk < 0 || int(m.unk) >= len(m.pieces) {
		return nil, fmt.Errorf("trainer_spec.unk_id: expected an id below %d, found %d", len(m.pieces), m.unk)
	}
	vocab := make(map[string]int32, len(m.pieces)+extra)
	var added []addedToken
	for i, p := range m.pieces {
		vocab[p.token] = int32(i)
		if m.kinds[i] == 3 || m.kinds[i] == 4 || i == int(m.unk) {
			added = append(added, addedToken{ID: int32(i), Content: p.token, Special: m.kinds[i] != 4})
		}
	}
	for i := range extra {
		id := int32(len(m.pieces) + extra - 1 - i)
		s := fmt.Sprintf("<extra_id_%d>", i)
		if old, ok := vocab[s]; ok {
			id = old
		}
		added = append(added, addedToken{ID: id, Content: s, Special: true})
	}
	u, err := newUnigram(m.pieces, m.unk, false)
	if err != nil {
		return nil, err
	}
	t.model = u
	t.preTokenizers = []preTokenizer{
		splitter{matchRunes(isSpace, false), "Removed", false},
		metaspace{"▁", "always", true},
	}
	t.decoders = []decoder{decodeMetaspace("▁", "always")}
	end, ok := vocab[eos]
	if !ok {
		return nil, fmt.Errorf("pieces: expected the end token %q, found none", eos)
	}
	if id, ok := vocab[pad]; ok {
		t.pad = id
	}
	t.templates = templates{template{{part: 1}, {id: end}}, template{{part: 1}, {id: end}, {part: 2}, {id: end}}}
	if added, err = c.complete(vocab, added); err != nil {
		return nil, err
	}
	return t, t.setVocab(vocab, added)
}
