package metric

import (
	"math"
	"slices"

	"github.com/kljensen/snowball/english"
)

// METEOR is the mean over segments of Lavie & Agarwal's (2007) score against the
// best reference, between 0 and 1, with exact and stem matches only: there are no
// synonyms and no paraphrases, so it is lower than the METEOR of published
// tables, which has WordNet. Words are compared in lower case, and their stems
// are Snowball's English ones, as in METEOR itself.
//
// As in NLTK's implementation, words are matched from the last to the first, each
// to the last word of the reference that is still free.
func METEOR(segments []Segment, tok Tokenizer) float64 {
	stems := map[string]string{}
	stem := func(words []string) []string {
		out := make([]string, len(words))
		for i, w := range words {
			s, ok := stems[w]
			if !ok {
				s = english.Stem(w, true)
				stems[w] = s
			}
			out[i] = s
		}
		return out
	}
	sum := 0.0
	for _, s := range tokenize(segments, Lower(tok)) {
		hypothesis := stem(s.hypothesis)
		best := 0.0
		for _, r := range s.references {
			best = max(best, meteor(s.hypothesis, r, hypothesis, stem(r)))
		}
		sum += best
	}
	return sum / float64(max(1, len(segments)))
}

// meteor scores one hypothesis against one reference, given the words and stems
// of both.
func meteor(hypothesis, reference, hypothesisStems, referenceStems []string) float64 {
	const alpha, beta, gamma = 0.9, 3, 0.5
	match := make([]int, len(hypothesis)) // the place in the reference
	for i := range match {
		match[i] = -1
	}
	free := make([]bool, len(reference))
	for i := range free {
		free[i] = true
	}
	matches := 0
	for _, stage := range [][2][]string{{hypothesis, reference}, {hypothesisStems, referenceStems}} {
		places := map[string][]int{} // in ascending order
		for j, w := range stage[1] {
			if free[j] {
				places[w] = append(places[w], j)
			}
		}
		for i, w := range slices.Backward(stage[0]) {
			if p := places[w]; match[i] < 0 && len(p) > 0 {
				match[i] = p[len(p)-1]
				places[w] = p[:len(p)-1]
				free[match[i]] = false
				matches++
			}
		}
	}
	if matches == 0 {
		return 0
	}
	chunks := 0
	for i, j := range match {
		if j >= 0 && (i == 0 || match[i-1] < 0 || match[i-1] != j-1) {
			chunks++
		}
	}
	precision, recall := float64(matches)/float64(len(hypothesis)), float64(matches)/float64(len(reference))
	mean := precision * recall / (alpha*precision + (1-alpha)*recall)
	return mean * (1 - gamma*math.Pow(float64(chunks)/float64(matches), beta))
}
