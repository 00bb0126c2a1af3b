package metric

import "math"

const bleuOrder = 4

// BLEU is the corpus score of Papineni et al. (2002) in percent: the geometric
// mean of the precisions of 1- to 4-grams, each clipped by the reference that has
// most of it, times the brevity penalty against the closest reference lengths
// (the shorter of two that are as close).
//
//   - BLEU(s, Tokenize13a, true) is sacrebleu's default: the k-th order without a
//     match counts as 1/2^k matches.
//   - BLEU(s, TokenizeWebNLG, false) is multi-bleu.perl as WebNLG's users run it.
//   - BLEU(s, Lower(Tokenize13a), false) is the E2E challenge's.
//
// Without smoothing an order without a match makes the score 0; with it only if
// no word matches at all.
func BLEU(segments []Segment, tok Tokenizer, smooth bool) float64 {
	var correct, total [bleuOrder]int
	length, closest := 0, 0
	for _, s := range tokenize(segments, tok) {
		reference := most(s.references, bleuOrder)
		for n, counts := range ngrams(s.hypothesis, bleuOrder) {
			correct[n] += overlap(counts, reference[n])
			total[n] += max(0, len(s.hypothesis)-n)
		}
		length += len(s.hypothesis)
		closest += closestLength(len(s.hypothesis), s.references)
	}
	if correct[0] == 0 {
		return 0
	}
	sum, half := 0.0, 1.0
	for n, c := range correct {
		precision := float64(c) / float64(total[n])
		if c == 0 {
			if !smooth || total[n] == 0 {
				return 0
			}
			half /= 2
			precision = half / float64(total[n])
		}
		sum += math.Log(precision)
	}
	penalty := min(0, 1-float64(closest)/float64(length))
	return 100 * math.Exp(penalty+sum/bleuOrder)
}

func closestLength(length int, references [][]string) int {
	best := len(references[0])
	for _, r := range references[1:] {
		d, b := abs(len(r)-length), abs(best-length)
		if d < b || d == b && len(r) < best {
			best = len(r)
		}
	}
	return best
}

func abs(x int) int { return max(x, -x) }
