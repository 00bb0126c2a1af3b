package generate

import (
	"math"
	"slices"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// candidate is a token that may follow, with its log-probability in a beam
// search.
type candidate struct {
	id    int32
	score float32
}

// picker picks, for each row of logits, what may follow its beam: the kept most
// probable tokens in a beam search, otherwise one.
type picker struct {
	picked [][]candidate // by row
	rows   []row
	logits *nn.Tensor
	opt    *Options
	banned [][]int32     // by worker
	order  [][]candidate // by worker, for sampling
	exps   [][]float32   // by worker, for the norm of a beam search
	seen   [][]bool      // by worker, which tokens have been penalised
}

// row says whose logits a row holds.
type row struct {
	text *text
	ids  []int32
}

func (p *picker) run(pool *kernel.Pool, logits *nn.Tensor, texts []*text, opt *Options) {
	p.rows = p.rows[:0]
	for _, t := range texts {
		for _, b := range t.beams {
			p.rows = append(p.rows, row{t, b.ids})
		}
	}
	for len(p.picked) < len(p.rows) {
		p.picked = append(p.picked, nil)
	}
	for len(p.banned) < pool.Workers() {
		p.banned, p.order = append(p.banned, nil), append(p.order, nil)
		p.exps, p.seen = append(p.exps, nil), append(p.seen, nil)
	}
	p.logits, p.opt = logits, opt
	pool.Run(len(p.rows), p)
}

// Do picks for row i.
func (p *picker) Do(i, w int) {
	r := p.rows[i]
	x := p.logits.Data[i*p.logits.Cols : (i+1)*p.logits.Cols]
	from := 0
	if p.opt.PromptMayRepeat {
		from = r.text.prompt
	}
	p.banned[w] = repeats(p.banned[w][:0], r.ids[from:], p.opt.NoRepeatNGram)
	if len(r.ids)-r.text.prompt < p.opt.MinNewTokens {
		p.banned[w] = append(p.banned[w], p.opt.Stop...)
	}
	var norm float32 // what log-probabilities are less than the logits of a beam search
	if r.text.search != nil {
		p.exps[w] = append(p.exps[w][:0], x...)
		top := kernel.MaxScaled(x, 1)
		norm = top + float32(math.Log(float64(kernel.ExpSum(p.exps[w], 1, top))))
	}
	if q := float32(p.opt.RepetitionPenalty); q != 0 && q != 1 {
		p.seen[w] = penalise(x, r.ids, norm, q, p.seen[w])
	}
	switch {
	case r.text.search != nil:
		p.picked[i] = mostProbable(p.picked[i][:0], x, kept(p.opt), p.banned[w])
		for j := range p.picked[i] {
			p.picked[i][j].score -= norm
		}
	case p.opt.Sample:
		for _, id := range p.banned[w] {
			x[id] = float32(math.Inf(-1))
		}
		var id int32
		id, p.order[w] = p.opt.draw(x, r.text.random.Float64(), p.order[w])
		p.picked[i] = append(p.picked[i][:0], candidate{id: id})
	default:
		p.picked[i] = mostProbable(p.picked[i][:0], x, 1, p.banned[w])
	}
}

// penalise makes the logits of ids, less norm, smaller by a factor. seen is memory of as
// many elements as there are logits, or nil, and is returned.
func penalise(logits []float32, ids []int32, norm, factor float32, seen []bool) []bool {
	if seen == nil {
		seen = make([]bool, len(logits))
	}
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		if x := logits[id] - norm; x < 0 {
			logits[id] = norm + x*factor
		} else {
			logits[id] = norm + x/factor
		}
	}
	for _, id := range ids {
		seen[id] = false
	}
	return seen
}

// repeats appends the tokens that would complete an n-gram which ids has already.
func repeats(to, ids []int32, n int) []int32 {
	if n == 0 || len(ids) < n {
		return to
	}
	last := ids[len(ids)-n+1:]
	for i := range len(ids) - n + 1 {
		if slices.Equal(ids[i:i+n-1], last) {
			to = append(to, ids[i+n-1])
		}
	}
	return to
}

// mostProbable appends the n tokens with the largest logits, largest first, of
// equal ones the first, without those that are banned. If all are banned it
// takes token 0, as an argmax over nothing but −Inf does.
func mostProbable(to []candidate, logits []float32, n int, banned []int32) []candidate {
	least := float32(math.Inf(-1))
	for id, x := range logits {
		if !(x > least) || len(banned) > 0 && slices.Contains(banned, int32(id)) {
			continue
		}
		if len(to) == n {
			to = to[:n-1]
		}
		at := len(to)
		for at > 0 && to[at-1].score < x {
			at--
		}
		to = slices.Insert(to, at, candidate{int32(id), x})
		if len(to) == n {
			least = to[n-1].score
		}
	}
	if len(to) == 0 {
		to = append(to, candidate{0, float32(math.Inf(-1))})
	}
	return to
}
