package metric

import (
	"math"
	"strings"
)

const nistOrder = 5

// NIST is the corpus score of Doddington (2002) as mteval and the E2E
// challenge's scripts compute it: for 1- to 5-grams the mean information of a
// hypothesis's n-grams, counting those that match; summed over the orders, times
// the length penalty against the mean length of a segment's references. The
// information of an n-gram, log2 of how often its beginning occurs over how often
// it does itself, is counted over all references.
//
// With one reference a segment it equals NLTK's; of several NLTK takes the best
// one's matches, mteval each n-gram's.
func NIST(segments []Segment, tok Tokenizer) float64 {
	corpus := tokenize(segments, tok)
	occurs := ngrams(nil, nistOrder)
	all, length, reference := 0, 0, 0.0
	for _, s := range corpus {
		sum := 0
		for _, r := range s.references {
			for n, counts := range ngrams(r, nistOrder) {
				for gram, c := range counts {
					occurs[n][gram] += c
				}
			}
			sum += len(r)
		}
		all += sum
		length += len(s.hypothesis)
		reference += float64(sum) / float64(len(s.references))
	}
	information := func(n int, gram string) float64 {
		begins := all
		if n > 0 {
			begins = occurs[n-1][gram[:strings.LastIndexByte(gram, ' ')]]
		}
		return math.Log2(float64(begins) / float64(occurs[n][gram]))
	}
	var found, total [nistOrder]float64
	for _, s := range corpus {
		references := most(s.references, nistOrder)
		for n, counts := range ngrams(s.hypothesis, nistOrder) {
			total[n] += float64(max(0, len(s.hypothesis)-n))
			for gram, c := range counts {
				if m := min(c, references[n][gram]); m > 0 {
					found[n] += float64(m) * information(n, gram)
				}
			}
		}
	}
	score := 0.0
	for n := range found {
		if total[n] > 0 {
			score += found[n] / total[n]
		}
	}
	if length == 0 {
		return 0
	}
	// A hypothesis of two thirds of the length halves the score.
	ratio := min(1, float64(length)/reference)
	return score * math.Exp(-math.Ln2*math.Pow(math.Log(ratio)/math.Log(1.5), 2))
}
