package metric

import (
	"strings"
)

// CHRF is the corpus score of Popović (2015, 2017) in percent as sacrebleu
// computes it: the F-score (β = 2) of the precisions and recalls of character
// n-grams to 6, averaged over the orders that occur, white space left out. wordOrder
// 0 is chrF; 2, which adds words and pairs of words, is chrF++. Of several
// references each segment counts the best.
func CHRF(segments []Segment, wordOrder int) float64 {
	sum := make([]chrfCounts, charOrder+wordOrder)
	for _, s := range segments {
		if len(s.References) == 0 {
			panic("metric: a segment without a reference")
		}
		hypothesis := chrfGrams(s.Hypothesis, wordOrder)
		var best []chrfCounts
		highest := -1.0
		for _, text := range s.References {
			counts := make([]chrfCounts, len(sum))
			for n, reference := range chrfGrams(text, wordOrder) {
				counts[n] = chrfCounts{total(hypothesis[n]), total(reference), overlap(hypothesis[n], reference)}
				if counts[n].reference == 0 {
					counts[n].hypothesis = 0 // no match was possible
				}
			}
			if f := chrf(counts); f > highest {
				highest, best = f, counts
			}
		}
		for n, c := range best {
			sum[n].hypothesis += c.hypothesis
			sum[n].reference += c.reference
			sum[n].match += c.match
		}
	}
	return 100 * chrf(sum)
}

const charOrder = 6

// chrfCounts are numbers of n-grams of one order.
type chrfCounts struct{ hypothesis, reference, match int }

func chrf(orders []chrfCounts) float64 {
	const beta2 = 4
	var precision, recall, n float64
	for _, c := range orders {
		if c.hypothesis > 0 && c.reference > 0 {
			precision += float64(c.match) / float64(c.hypothesis)
			recall += float64(c.match) / float64(c.reference)
			n++
		}
	}
	if precision+recall == 0 {
		return 0
	}
	precision, recall = precision/n, recall/n
	return (1 + beta2) * precision * recall / (beta2*precision + recall)
}

// chrfGrams counts character n-grams, then those of words.
func chrfGrams(text string, wordOrder int) []map[string]int {
	joined := strings.Join(strings.Fields(text), "")
	starts := make([]int, 0, len(joined)+1)
	for i := range joined {
		starts = append(starts, i)
	}
	starts = append(starts, len(joined))
	grams := make([]map[string]int, charOrder, charOrder+wordOrder)
	for n := range grams {
		grams[n] = map[string]int{}
		for i := 0; i+n+1 < len(starts); i++ {
			grams[n][joined[starts[i]:starts[i+n+1]]]++
		}
	}
	return append(grams, ngrams(chrfWords(text), wordOrder)...)
}

// chrfWords takes a mark of punctuation off each word's end, or else its
// beginning.
func chrfWords(text string) []string {
	const punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
	var out []string
	for _, w := range strings.Fields(text) {
		last := len(w) - 1
		switch {
		case last == 0:
			out = append(out, w)
		case strings.IndexByte(punctuation, w[last]) >= 0:
			out = append(out, w[:last], w[last:])
		case strings.IndexByte(punctuation, w[0]) >= 0:
			out = append(out, w[:1], w[1:])
		default:
			out = append(out, w)
		}
	}
	return out
}

func total(counts map[string]int) int {
	sum := 0
	for _, c := range counts {
		sum += c
	}
	return sum
}
