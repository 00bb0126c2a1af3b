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
	switch {
	case r.text.search != nil:
		p.picked[i] = mostProbable(p.picked[i][:0], x, kept(p.opt), p.banned[w])
		top := kernel.MaxScaled(x, 1)
		norm := top + float32(math.Log(float64(kernel.ExpSum(x, 1, top))))
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
