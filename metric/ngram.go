package metric

import "strings"

// ngrams counts the n-grams of words, n from 1 to order: counts[n-1] is keyed by
// the words joined by a space.
func ngrams(words []string, order int) []map[string]int {
	counts := make([]map[string]int, order)
	for n := range counts {
		counts[n] = map[string]int{}
		for i := range len(words) - n {
			counts[n][strings.Join(words[i:i+n+1], " ")]++
		}
	}
	return counts
}

// most merges the counts of several references: the largest of each n-gram.
func most(references [][]string, order int) []map[string]int {
	all := ngrams(nil, order)
	for _, r := range references {
		for n, counts := range ngrams(r, order) {
			for gram, c := range counts {
				all[n][gram] = max(all[n][gram], c)
			}
		}
	}
	return all
}

// overlap is the number of n-grams of a that b has too.
func overlap(a, b map[string]int) int {
	sum := 0
	for gram, c := range a {
		sum += min(c, b[gram])
	}
	return sum
}
