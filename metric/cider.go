package metric

import "math"

const ciderOrder = 4

// CIDEr is the mean over segments of the consensus score of Vedantam et al.
// (2015) as the COCO caption scorer computes it (CIDEr-D, n-grams to 4, σ = 6,
// times 10): the similarity of the tf-idf vectors of hypothesis and references,
// clipped, with a Gaussian penalty on the difference in length. An n-gram's
// document frequency is the number of segments one of whose references has it,
// so that a score depends on the whole corpus and one of a single segment is 0.
func CIDEr(segments []Segment, tok Tokenizer) float64 {
	const sigma = 6
	corpus := tokenize(segments, tok)
	documents := map[string]int{}
	for _, s := range corpus {
		for _, counts := range most(s.references, ciderOrder) {
			for gram := range counts {
				documents[gram]++
			}
		}
	}
	type vector struct {
		weights [ciderOrder]map[string]float64
		norms   [ciderOrder]float64
		length  float64 // bigrams
	}
	vectorOf := func(words []string) *vector {
		v := &vector{length: float64(max(0, len(words)-1))}
		for n, counts := range ngrams(words, ciderOrder) {
			v.weights[n] = make(map[string]float64, len(counts))
			for gram, c := range counts {
				w := float64(c) * math.Log(float64(len(corpus))/float64(max(1, documents[gram])))
				v.weights[n][gram] = w
				v.norms[n] += w * w
			}
			v.norms[n] = math.Sqrt(v.norms[n])
		}
		return v
	}
	sum := 0.0
	for _, s := range corpus {
		h, similarity := vectorOf(s.hypothesis), 0.0
		for _, reference := range s.references {
			r := vectorOf(reference)
			penalty := math.Exp(-(h.length - r.length) * (h.length - r.length) / (2 * sigma * sigma))
			for n, weights := range h.weights {
				if h.norms[n] == 0 || r.norms[n] == 0 {
					continue
				}
				product := 0.0
				for gram, w := range weights {
					product += min(w, r.weights[n][gram]) * r.weights[n][gram]
				}
				similarity += penalty * product / (h.norms[n] * r.norms[n])
			}
		}
		sum += 10 * similarity / ciderOrder / float64(len(s.references))
	}
	return sum / float64(max(1, len(segments)))
}
