package kmeans

import (
	"math"
	"math/rand/v2"
	"slices"
)

// window is the number of rows whose moves are found from one state. A worker
// takes lanes of them at a time.
const window = 512

const (
	stay    = -1 // a row's move: to remain where it is
	beAlone = -2 // or to open a cluster of its own
)

// propose finds the best moves of a window of rows.
type propose struct {
	p           *partition
	from        int
	temperature float32
	seed        uint64
	to          []int32   // window: where a row should go
	luck        []float32 // window: what chance credits that move with, beside staying
	cost        []float32 // window
	norm        []float32 // n, and lanes more
	coef        []float32 // n: the rows' weights
	clock       int       // windows looked at so far
	seen        []int     // n/lanes: the clock when the rows last looked at all clusters
	changed     []int     // k: the clock when the cluster last changed
	lists       *memberLists
	offers      []offer // of each worker
}

func newPropose(p *partition) *propose {
	n := p.g.n
	q := &propose{
		p: p, to: make([]int32, window), luck: make([]float32, window), cost: make([]float32, window),
		lists: members(p.of, p.k), norm: make([]float32, n+lanes), coef: make([]float32, n),
		seen: make([]int, (n+lanes-1)/lanes), changed: make([]int, p.k), offers: make([]offer, p.g.pool.Workers()),
	}
	for i, v := range p.g.norm {
		q.norm[i] = float32(v)
		q.coef[i] = float32(p.g.weight[i])
	}
	return q
}

// Do finds the moves of rows at·lanes … of the window.
func (q *propose) Do(at, w int) {
	p, g := q.p, q.p.g
	i0 := q.from + at*lanes
	rows := min(g.n-i0, lanes)
	of, to, luck, cost := p.of[i0:i0+lanes], q.to[at*lanes:][:lanes], q.luck[at*lanes:][:lanes], q.cost[at*lanes:][:lanes]
	// The lanes' own generator: what it draws does not depend on the worker.
	chance := splitmix(q.seed + uint64(at))
	none, alone := chance.gumbels(), chance.gumbels()
	for i := range rows {
		to[i], luck[i] = stay, none[i]
		single := len(p.rows[of[i]]) == 1
		if single && p.price == 0 {
			cost[i] = float32(math.Inf(-1))
			continue
		}
		cost[i] = float32(p.leaves(int32(i0+i))) - q.temperature*none[i]
		if v := float32(p.price) - q.temperature*alone[i]; p.price > 0 && !single && v < cost[i] {
			cost[i], to[i], luck[i] = v, beAlone, alone[i]
		}
	}
	o := &q.offers[w]
	*o = offer{
		coef: q.coef, g: g.at[i0:], stride: g.stride, norm: q.norm[i0:], of: of, cost: cost, to: to, luck: luck,
		draw: none, temperature: q.temperature,
	}
	// Without luck, what has not changed since these rows last looked at it cannot
	// have become better: only rows of a cluster that has changed look at all.
	seen := q.seen[i0/lanes]
	q.seen[i0/lanes] = q.clock
	var again []int
	for i, c := range of[:rows] {
		if q.changed[c] >= seen {
			again = append(again, i)
		}
	}
	all := q.temperature > 0 || len(again) > rows/8
	weights := q.coef[i0 : i0+rows]
	equal := !slices.ContainsFunc(weights, func(w float32) bool { return w != 1 })
	for c := range int32(p.k) {
		if len(p.rows[c]) == 0 {
			continue
		}
		look := all || q.changed[c] >= seen
		if !look && len(again) == 0 {
			continue
		}
		// A row of weight w pays w·m/(m+w) times its squared distance.
		m := p.mass[c]
		o.name, o.rows = c, q.lists.of(int(c))
		o.scale, o.own, o.share = float32(-2/m), float32(p.sum2[c]/(m*m)), float32(m/(m+1))
		if look {
			o.draw = chance.gumbels()
		}
		switch {
		case look && equal:
			o.put()
		case look:
			for i, w := range weights {
				o.one(i, g.row(i0+i), w*float32(m)/(float32(m)+w))
			}
		default:
			for _, i := range again {
				o.one(i, g.row(i0+i), weights[i]*float32(m)/(float32(m)+weights[i]))
			}
		}
	}
	for i := range rows {
		luck[i] = q.temperature * (luck[i] - none[i])
	}
}

// one is put for row i alone, given its row of G and its share.
func (o *offer) one(i int, row []float32, share float32) {
	var product float32
	for _, j := range o.rows {
		product += o.coef[j] * row[j]
	}
	c := share*(o.norm[i]+o.scale*product+o.own) - o.temperature*o.draw[i]
	if c < o.cost[i] && o.of[i] != o.name {
		o.cost[i], o.to[i], o.luck[i] = c, o.name, o.draw[i]
	}
}

// splitmix is the generator of Steele, Lea and Flood (2014).
type splitmix uint64

func (s *splitmix) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// gumbels returns lanes variates, by their place in a table of many.
func (s *splitmix) gumbels() []float32 {
	from := s.next() % gumbelTable
	return gumbel[from : from+lanes]
}

const gumbelTable = 1 << 13

// gumbel holds variates −ln(−ln u), always the same.
var gumbel = func() []float32 {
	rng := rand.New(rand.NewPCG(1, 1))
	t := make([]float32, gumbelTable+lanes)
	for i := range t {
		t[i] = float32(-math.Log(-math.Log(rng.Float64())))
	}
	return t
}()
