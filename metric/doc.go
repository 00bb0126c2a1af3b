// Package metric scores generated texts against references, as users of WebNLG,
// E2E and machine translation report it: [BLEU], [NIST], [METEOR] (exact and
// stem matches only), [TER], [ROUGEL], [CIDEr] and [CHRF].
//
// A corpus is a slice of segments, each a hypothesis with any number of
// references, at least one. What counts as a word is the [Tokenizer]'s to say.
// The scores agree with sacrebleu's, NLTK's and pycocoevalcap's, which the tests
// compare with; where one sums over segments, the order of the segments does not
// matter but for rounding.
package metric

// Segment is a generated text and the texts that it may resemble.
type Segment struct {
	Hypothesis string   `json:"hypothesis"`
	References []string `json:"references"`
}

// words is a segment in words.
type words struct {
	hypothesis []string
	references [][]string
}

// tokenize cuts all segments into words. It panics where one has no reference,
// which is the caller's mistake.
func tokenize(segments []Segment, tok Tokenizer) []words {
	out := make([]words, len(segments))
	for i, s := range segments {
		if len(s.References) == 0 {
			panic("metric: a segment without a reference")
		}
		out[i].hypothesis = tok(s.Hypothesis)
		for _, r := range s.References {
			out[i].references = append(out[i].references, tok(r))
		}
	}
	return out
}
