package tokenize

import "sync"

// Encoding is one input, or a pair, as token ids with the special tokens added.
type Encoding struct {
	IDs   []int32 // vocabulary rows
	Types []int32 // token_type_ids, one for each id: 0, or 1 in the second text of a pair (RoBERTa: always 0)
}

// Tokenizer is the common face of all tokenizers. It may be used by many
// goroutines at once.
type Tokenizer interface {
	// Encode tokenizes text, and pair when it is not nil, and adds the special
	// tokens. With maxLen > 0 the result has at most maxLen tokens, special ones
	// counted: the longer text gives way first, as with transformers'
	// truncation="longest_first". A maxLen smaller than the number of special
	// tokens leaves just these.
	Encode(text string, pair *string, maxLen int) Encoding
	// Plain tokenizes text without adding special tokens, and returns the places where
	// added tokens begin in it, in order.
	Plain(text string) ([]int32, []Place)
	// Decode joins the tokens of ids to text, special tokens and unknown ids left
	// out.
	Decode(ids []int32) string
	// VocabSize is one more than the largest id, added tokens included: the rows
	// that an embedding needs.
	VocabSize() int
	// BaseSize is the same without the added tokens. A model may have fewer rows
	// than VocabSize as long as no text has the tokens that it lacks.
	BaseSize() int
	// PadID is the id of the padding token, or -1 when the files name none.
	PadID() int32
}

// Place is a place in a text: the number of bytes, and of tokens, before it. Where an
// added token begins, what is before does not change how the rest is tokenized.
type Place struct{ Bytes, Tokens int }

// normalizer appends the normalized form of src to dst.
type normalizer interface {
	normalize(dst, src []byte) []byte
}

// preTokenizer splits text, which is not empty, into pieces, which it adds to
// out. start says that text is the beginning of the input.
type preTokenizer interface {
	split(text []byte, start bool, out *pieces)
}

// model appends the ids of one piece to ids.
type model interface {
	encode(piece []byte, s *scratch, ids []int32) []int32
}

// pieces are byte strings laid end to end.
type pieces struct {
	buf  []byte
	ends []int
}

func (p *pieces) reset() { p.buf, p.ends = p.buf[:0], p.ends[:0] }

// close ends the piece that was appended to buf; an empty one is dropped.
func (p *pieces) close() {
	if n := len(p.ends); len(p.buf) > 0 && (n == 0 || p.ends[n-1] < len(p.buf)) {
		p.ends = append(p.ends, len(p.buf))
	}
}

func (p *pieces) add(b []byte) {
	p.buf = append(p.buf, b...)
	p.close()
}

// scratch is the memory of one Encode call, kept in a pool.
type scratch struct {
	text, norm, spare []byte
	in, out           pieces
	bpe               bpeScratch
	path              []pathNode
	first, second     []int32
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// tokenizer is the pipeline; every source of files is read into one of these.
type tokenizer struct {
	raw, added    addedTokens // added tokens found before and after normalization
	normalizers   []normalizer
	preTokenizers []preTokenizer
	model         model
	templates
	decoders     []decoder
	truncateLeft bool

	tokens  map[int32]string // every id's token
	special map[int32]bool   // ids that Decode leaves out
	base    int
	size    int
	pad     int32
}

func (t *tokenizer) VocabSize() int { return t.size }
func (t *tokenizer) BaseSize() int  { return t.base }
func (t *tokenizer) PadID() int32   { return t.pad }

func (t *tokenizer) Encode(text string, pair *string, maxLen int) Encoding {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.first = t.ids(s, text, s.first[:0], nil)
	tmpl, a, b := t.single, s.first, []int32(nil)
	if pair != nil {
		s.second = t.ids(s, *pair, s.second[:0], nil)
		tmpl, b = t.pair, s.second
	}
	if maxLen > 0 {
		n, m := longestFirst(len(a), len(b), max(0, maxLen-tmpl.added()))
		if t.truncateLeft {
			a, b = a[len(a)-n:], b[len(b)-m:]
		} else {
			a, b = a[:n], b[:m]
		}
	}
	return tmpl.apply(a, b)
}

func (t *tokenizer) Plain(text string) ([]int32, []Place) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	var places []Place
	return t.ids(s, text, nil, &places), places
}

// longestFirst shortens two lengths to a sum of at most room: the longer one
// first, then both to half of room each, the second keeping the odd token.
func longestFirst(n, m, room int) (int, int) {
	if n+m <= room {
		return n, m
	}
	short := min(n, m)
	if 2*short > room {
		short = room / 2
	}
	long := room - short
	if n > m {
		return long, short
	}
	return short, long
}

// ids appends the ids of text, without special tokens, to ids, and to places, unless
// nil, where the added tokens are that are looked for in the text as it is.
func (t *tokenizer) ids(s *scratch, text string, ids []int32, places *[]Place) []int32 {
	s.text = appendValid(s.text[:0], text)
	whole := s.text
	t.raw.split(whole, func(part []byte, id int32, at int) {
		if id >= 0 {
			if places != nil {
				*places = append(*places, Place{at, len(ids)})
			}
			ids = append(ids, id)
			return
		}
		s.norm = append(s.norm[:0], part...)
		for _, n := range t.normalizers {
			s.spare = n.normalize(s.spare[:0], s.norm)
			s.norm, s.spare = s.spare, s.norm
		}
		t.added.split(s.norm, func(part []byte, id int32, in int) {
			if id >= 0 {
				ids = append(ids, id)
				return
			}
			ids = t.words(s, part, at == 0 && in == 0, ids)
		})
	})
	return ids
}

// words splits one normalized stretch of text and lets the model encode its
// pieces.
func (t *tokenizer) words(s *scratch, text []byte, start bool, ids []int32) []int32 {
	s.in.reset()
	s.in.add(text)
	for _, p := range t.preTokenizers {
		s.out.reset()
		from := 0
		for i, end := range s.in.ends {
			p.split(s.in.buf[from:end], start && i == 0, &s.out)
			from = end
		}
		s.in, s.out = s.out, s.in
	}
	from := 0
	for _, end := range s.in.ends {
		ids = t.model.encode(s.in.buf[from:end], s, ids)
		from = end
	}
	return ids
}

func (t *tokenizer) Decode(ids []int32) string {
	var tokens []string
	for _, id := range ids {
		if token, ok := t.tokens[id]; ok && !t.special[id] {
			tokens = append(tokens, token)
		}
	}
	for _, d := range t.decoders {
		tokens = d(tokens)
	}
	return join(tokens, len(t.decoders) == 0)
}
