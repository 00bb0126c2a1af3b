package task

import (
	"math"
	"slices"
)

// SplitExamples cuts examples into len(fractions) parts of those shares, chosen at random
// by seed, each in the order of the data set. With stratified every label has
// the same share in each part, to rounding. The examples of an entry stay
// together. Shares that sum to less than 1 leave the rest out.
func SplitExamples(seed uint64, examples []Example, stratified bool, fractions ...float64) [][]Example {
	groups := map[float32][][]int{} // the rows that go together, by label
	entries := map[int]int{}        // where an entry's rows are in its group
	for i, e := range examples {
		key := float32(0)
		if stratified {
			key = e.Label
		}
		if at, ok := entries[e.Entry]; ok && e.Entry > 0 {
			groups[key][at] = append(groups[key][at], i)
			continue
		}
		entries[e.Entry] = len(groups[key])
		groups[key] = append(groups[key], []int{i})
	}
	keys := make([]float32, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	rows := make([][]int, len(fractions))
	for g, k := range keys {
		group := groups[k]
		order := Shuffle(seed, g, len(group))
		from, share := 0, 0.0
		for i, f := range fractions {
			share += f
			to := max(from, min(len(group), int(math.Round(share*float64(len(group))))))
			for _, j := range order[from:to] {
				rows[i] = append(rows[i], group[j]...)
			}
			from = to
		}
	}
	parts := make([][]Example, len(fractions))
	for i, r := range rows {
		slices.Sort(r)
		for _, j := range r {
			parts[i] = append(parts[i], examples[j])
		}
	}
	return parts
}

// HoldOut makes a tenth of the training examples, chosen by the seed, the
// development split where there is none; of a few documents the last tenth of
// each. It tells whether it did.
func (d *Dataset) HoldOut(seed uint64) bool {
	if len(d.Dev) > 0 || len(d.Train) == 0 {
		return false
	}
	const share, few = 0.1, 20
	d.DevName = "held out"
	if d.Spec.Documents && len(d.Train) < few {
		d.Train, d.Dev = CutTails(d.Train, share)
		return true
	}
	parts := SplitExamples(seed, d.Train, false, share, 1-share)
	d.Dev, d.Train = parts[0], parts[1]
	return true
}
