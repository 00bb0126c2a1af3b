package metric

// ROUGEL is the mean over segments of ROUGE-L (Lin 2004) between 0 and 1, as the
// COCO caption scorer and with it the E2E challenge compute it: the F-score
// (β = 1.2) of the best precision and the best recall that the longest common
// subsequence with any reference gives.
func ROUGEL(segments []Segment, tok Tokenizer) float64 {
	const beta2 = 1.2 * 1.2
	sum := 0.0
	for _, s := range tokenize(segments, tok) {
		var precision, recall float64
		for _, r := range s.references {
			if common := float64(commonSubsequence(s.hypothesis, r)); common > 0 {
				precision = max(precision, common/float64(len(s.hypothesis)))
				recall = max(recall, common/float64(len(r)))
			}
		}
		if precision > 0 {
			sum += (1 + beta2) * precision * recall / (recall + beta2*precision)
		}
	}
	return sum / float64(max(1, len(segments)))
}

// commonSubsequence is the length of the longest common subsequence.
func commonSubsequence(a, b []string) int {
	row := make([]int, len(b)+1) // of the table, up to the words of a seen so far
	for _, w := range a {
		diagonal := 0
		for j, v := range b {
			above := row[j+1]
			if w == v {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(above, row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}
