package task

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
)

// SplitExamples cuts examples into len(fractions) parts of those shares, chosen at random
// by seed, each in the order of the data set. With stratified every label has
// the same share in each part, to rounding. Shares that sum to less than 1 leave
// the rest out.
func SplitExamples(seed uint64, examples []Example, stratified bool, fractions ...float64) [][]Example {
	groups := map[float32][]int{} // rows, by label
	for i, e := range examples {
		key := float32(0)
		if stratified {
			key = e.Label
		}
		groups[key] = append(groups[key], i)
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
				rows[i] = append(rows[i], group[j])
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

// Digest tells rows apart by what a model reads of them: the text with its pair,
// the text to be modelled where there is no prompt, or a conversation. Copies have the
// same.
func (e *Example) Digest() uint64 {
	text := cmp.Or(e.Text, e.Target)
	for _, m := range e.Turns {
		text += "\x00" + m.Role + "\x00" + m.Content
	}
	sum := sha256.Sum256([]byte(text + "\x00" + e.Pair))
	return binary.BigEndian.Uint64(sum[:])
}

// HoldOut makes a tenth of the training examples the development split where there
// is none; of a few documents the last tenth of each. Which ones is a rule of the
// data alone: those with the lowest digests, so that neither a seed nor the order of
// the rows counts, and copies of a row go together. It tells whether it held any out.
func (d *Dataset) HoldOut() bool {
	if len(d.Dev) > 0 || len(d.Train) == 0 {
		return false
	}
	const share, few = 0.1, 20
	if d.Spec.Documents && len(d.Train) < few {
		d.DevName = heldOut
		d.Train, d.Dev = CutTails(d.Train, share)
		return true
	}
	digests := make([]uint64, len(d.Train))
	for i := range d.Train {
		digests[i] = d.Train[i].Digest()
	}
	sorted := slices.Sorted(slices.Values(digests))
	limit := sorted[max(1, int(math.Round(share*float64(len(sorted)))))-1]
	if limit == sorted[len(sorted)-1] {
		return false // copies of one row, or nearly
	}
	var train []Example
	for i, e := range d.Train {
		if digests[i] <= limit {
			d.Dev = append(d.Dev, e)
		} else {
			train = append(train, e)
		}
	}
	d.Train, d.DevName = train, heldOut
	return true
}

// heldOut is the name of the development split that HoldOut makes.
const heldOut = "held out"
