package generate

import (
	"cmp"
	"math"
	"slices"
)

// search is the state of a beam search besides its beams: the finished texts,
// best first, at most as many as beams.
type search struct {
	finished []finished
}

type finished struct {
	ids   []int32
	score float64 // with the length penalty
	stop  bool
}

// extension is a beam with one more token.
type extension struct {
	beam  int
	id    int32
	score float32 // log-probability
}

// kept is the number of extensions of all beams together that a step of the
// search looks at, such that enough are left if all stop tokens are among them.
func kept(opt *Options) int { return max(2, 1+len(opt.Stop)) * opt.Beams }

// branch takes one step of transformers' beam search: of the most probable
// extensions of all beams, those among the first Beams that end are finished
// texts, and the best Beams that do not end are the next beams.
func (g *Generator) branch(t *text, picked [][]candidate, opt *Options) (Result, bool) {
	var all []extension
	for i, row := range picked {
		for _, c := range row {
			all = append(all, extension{i, c.id, t.beams[i].score + c.score})
		}
	}
	slices.SortStableFunc(all, func(a, b extension) int { return cmp.Compare(b.score, a.score) })
	all = all[:min(len(all), kept(opt))]

	length := len(t.beams[0].ids) + 1
	full := length >= t.longest
	var running []extension
	for i, e := range all {
		stop := slices.Contains(opt.Stop, e.id)
		switch {
		case !stop && !full:
			if len(running) < opt.Beams {
				running = append(running, e)
			}
		case i < opt.Beams:
			ids := slices.Clone(t.beams[e.beam].ids)
			if !stop {
				ids = append(ids, e.id)
			}
			t.search.finish(finished{ids, float64(e.score) / math.Pow(float64(length-t.prompt), opt.LengthPenalty), stop}, opt.Beams)
		}
	}
	if len(running) == 0 || t.search.over(t, running[0].score, length, opt) {
		best := t.search.finished[0]
		return Result{best.ids[t.prompt:], best.stop, best.score}, true
	}
	g.follow(t, running)
	return Result{}, false
}

// finish adds a finished text if it is among the best.
func (s *search) finish(f finished, most int) {
	at, _ := slices.BinarySearchFunc(s.finished, f, func(a, b finished) int {
		if a.score >= b.score {
			return -1
		}
		return 1
	})
	s.finished = slices.Insert(s.finished, at, f)
	s.finished = s.finished[:min(len(s.finished), most)]
}

// over tells whether the search ends before the length runs out, given the best
// beam's log-probability and the length of the beams.
func (s *search) over(t *text, best float32, length int, opt *Options) bool {
	if len(s.finished) < opt.Beams {
		return false
	}
	if opt.EarlyStopping == StopFull {
		return true
	}
	if opt.EarlyStopping == StopNever && opt.LengthPenalty > 0 {
		length = t.longest
	}
	possible := float64(best) / math.Pow(float64(length-t.prompt), opt.LengthPenalty)
	return possible <= s.finished[len(s.finished)-1].score
}

// follow makes the extensions the beams. A beam with several of them forks.
func (g *Generator) follow(t *text, running []extension) {
	next := make([]beam, len(running))
	taken := make([]bool, len(t.beams))
	for i, e := range running {
		from := t.beams[e.beam]
		next[i] = beam{sequence: from.sequence, ids: append(slices.Clone(from.ids), e.id), score: e.score}
		if taken[e.beam] {
			next[i].sequence = g.cache.Fork(from.sequence)
		}
		taken[e.beam] = true
	}
	for i, b := range t.beams {
		if !taken[i] {
			g.cache.Free(b.sequence)
		}
	}
	t.beams = next
}
