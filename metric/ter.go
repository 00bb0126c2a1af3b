package metric

import (
	"math"
	"slices"
)

// TER is the translation edit rate of Snover et al. (2006) in percent, less being
// better: the insertions, deletions, substitutions and shifts of phrases that
// make hypotheses their closest references, over the mean length of the
// references. The search for shifts is Tercom's greedy one within its limits, as
// sacrebleu has it; TER(s, Lower(Fields)) is sacrebleu's default.
func TER(segments []Segment, tok Tokenizer) float64 {
	edits, length := 0, 0.0
	for _, s := range tokenize(segments, tok) {
		fewest, sum := math.MaxInt, 0
		for _, r := range s.references {
			fewest = min(fewest, editsTo(s.hypothesis, r))
			sum += len(r)
		}
		edits += fewest
		length += float64(sum) / float64(len(s.references))
	}
	switch {
	case length > 0:
		return 100 * float64(edits) / length
	case edits > 0:
		return 100
	}
	return 0
}

// Tercom's limits, and sacrebleu's own on the shifts that are tried.
const (
	maxShiftWords    = 10
	maxShiftDistance = 50
	maxShiftTries    = 1000
	editBand         = 25
)

// editsTo is the number of edits that turn the hypothesis into the reference.
func editsTo(hypothesis, reference []string) int {
	if len(reference) == 0 {
		return len(hypothesis)
	}
	e := newEdits(hypothesis, reference)
	shifts := 0
	for tries := 0; ; shifts++ {
		better := e.bestShift(&tries)
		if better == nil || tries >= maxShiftTries {
			return shifts + e.distance()
		}
		e.set(better)
	}
}

// edits is the table of edit distances from prefixes of a hypothesis to those of
// a reference, near the diagonal.
type edits struct {
	hypothesis, reference []string
	cells                 []cell // (len(hypothesis)+1) × width
	width                 int
	done                  int // rows that hold for the words of the hypothesis
}

type cell struct {
	cost int32
	op   byte
}

// What a cell did last, to turn the hypothesis into the reference.
const (
	keep       = 'k'
	substitute = 's'
	remove     = 'd' // a word of the hypothesis
	insert     = 'i' // a word of the reference
)

func newEdits(hypothesis, reference []string) *edits {
	e := &edits{hypothesis: hypothesis, reference: reference, width: len(reference) + 1}
	e.cells = make([]cell, (len(hypothesis)+1)*e.width)
	for j := range e.width {
		e.cells[j] = cell{int32(j), insert}
	}
	e.fill()
	return e
}

// set changes the hypothesis to another order of its words.
func (e *edits) set(words []string) {
	same := 0
	for same < len(words) && words[same] == e.hypothesis[same] {
		same++
	}
	e.done = min(e.done, same)
	e.hypothesis = words
	e.fill()
}

// fill computes the rows that do not hold.
func (e *edits) fill() {
	h, r := len(e.hypothesis), len(e.reference)
	ratio := 1.0
	if h > 0 {
		ratio = float64(r) / float64(h)
	}
	band := editBand
	if editBand < ratio/2 {
		band = int(math.Ceil(ratio/2 + editBand))
	}
	for i := e.done + 1; i <= h; i++ {
		row, above := e.cells[i*e.width:(i+1)*e.width], e.cells[(i-1)*e.width:i*e.width]
		for j := range row {
			row[j] = cell{math.MaxInt32 / 2, 0}
		}
		diagonal := int(math.Floor(float64(i) * ratio))
		to := min(r+1, diagonal+band)
		if i == h {
			to = r + 1
		}
		for j := max(0, diagonal-band); j < to; j++ {
			if j == 0 {
				row[0] = cell{above[0].cost + 1, remove}
				continue
			}
			// Of equal costs the first: as Tercom prefers them, seen backwards.
			c := cell{above[j-1].cost + 1, substitute}
			if e.hypothesis[i-1] == e.reference[j-1] {
				c = cell{above[j-1].cost, keep}
			}
			if d := above[j].cost + 1; d < c.cost {
				c = cell{d, remove}
			}
			if d := row[j-1].cost + 1; d < c.cost {
				c = cell{d, insert}
			}
			if c.cost < row[j].cost {
				row[j] = c
			}
		}
	}
	e.done = h
}

func (e *edits) distance() int { return int(e.cells[len(e.cells)-1].cost) }

// alignment follows the table back: for each word of the reference the place of
// the last word of the hypothesis at or before it, -1 for none, and whether each
// word of either is wrong.
func (e *edits) alignment() (at []int, wrongReference, wrongHypothesis []bool) {
	i, j := len(e.hypothesis), len(e.reference)
	at, wrongReference, wrongHypothesis = make([]int, j), make([]bool, j), make([]bool, i)
	for i > 0 || j > 0 {
		op := e.cells[i*e.width+j].op
		if op != insert {
			i--
			wrongHypothesis[i] = op != keep
		}
		if op != remove {
			j--
			wrongReference[j] = op != keep
			at[j] = i
			if op == insert {
				at[j] = i - 1
			}
		}
	}
	return at, wrongReference, wrongHypothesis
}

// bestShift returns the hypothesis after the shift that saves most edits, or nil
// when none saves any. Of shifts that save as many it takes the longest, then the
// earliest, then the one to the earliest place. tries counts the shifts tried.
func (e *edits) bestShift(tries *int) []string {
	before := e.distance()
	at, wrongReference, wrongHypothesis := e.alignment()
	original := e.hypothesis
	var best []string
	var rank [4]int // of best
search:
	for start := range original {
		for to := range e.reference {
			if abs(to-start) > maxShiftDistance {
				continue
			}
			longest := min(maxShiftWords, len(original)-start, len(e.reference)-to)
			for n := 1; n <= longest && original[start+n-1] == e.reference[to+n-1]; n++ {
				if !slices.Contains(wrongHypothesis[start:start+n], true) || !slices.Contains(wrongReference[to:to+n], true) {
					continue // both are right where they stand
				}
				if start <= at[to] && at[to] < start+n {
					continue // into itself
				}
				last := -1
				for offset := -1; offset < n; offset++ {
					place := 0
					if to+offset >= 0 {
						place = at[to+offset] + 1
					}
					if place == last {
						continue
					}
					last = place
					words := shift(original, start, n, place)
					e.set(words)
					*tries++
					r := [4]int{before - e.distance(), n, -start, -place}
					if best == nil || slices.Compare(r[:], rank[:]) > 0 {
						best, rank = words, r
					}
				}
				if *tries >= maxShiftTries {
					break search
				}
			}
		}
	}
	e.set(original)
	if best == nil || rank[0] <= 0 {
		return nil
	}
	return best
}

// shift moves n words from start to before the place to.
func shift(words []string, start, n, to int) []string {
	phrase := words[start : start+n]
	switch {
	case to < start:
		return slices.Concat(words[:to], phrase, words[to:start], words[start+n:])
	case to > start+n:
		return slices.Concat(words[:start], words[start+n:to], phrase, words[to:])
	default: // the place is counted without the phrase
		to = min(to+n, len(words))
		return slices.Concat(words[:start], words[start+n:to], phrase, words[to:])
	}
}
