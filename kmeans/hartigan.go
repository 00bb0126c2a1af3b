package kmeans

import "math/rand/v2"

// partition is a clustering that can be changed row by row. All it knows of a
// cluster is its weight and ‖Σ w·x‖², which give its inertia.
//
// While price is 0, no cluster loses its last row. With a price, a cluster costs
// that much: a row may leave a cluster of its own, which saves the price, or open
// one, which costs it, as long as the number of clusters stays between least and k.
type partition struct {
	g       *gram
	k       int
	of      []int32   // n: the cluster of each row
	rows    [][]int32 // k: the rows of each cluster
	mass    []float64 // k: Σ w
	sum2    []float64 // k: ‖Σ w·x‖²
	price   float64
	open    int // clusters that have rows
	least   int
	propose *propose
}

func newPartition(g *gram, of []int32, k int) *partition {
	p := &partition{
		g: g, k: k, of: make([]int32, g.n, g.n+lanes), rows: make([][]int32, k),
		mass: make([]float64, k), sum2: make([]float64, k), open: k,
	}
	copy(p.of, of)
	m := members(of, k)
	for c := range k {
		p.rows[c] = append(p.rows[c], m.of(c)...)
		for _, i := range p.rows[c] {
			p.mass[c] += g.weight[i]
		}
		p.sum2[c] = g.squaredSum(p.rows[c])
	}
	p.propose = newPropose(p)
	return p
}

// inertia is Σ w·‖x‖² − Σ_c ‖Σ_{i∈c} w·x‖²/mass_c.
func (p *partition) inertia() float64 {
	s := p.g.totalInertia()
	for c := range p.k {
		if p.mass[c] > 0 {
			s -= p.sum2[c] / p.mass[c]
		}
	}
	return s
}

// product returns ⟨x_i, Σ_{j∈c} w_j·x_j⟩.
func (p *partition) product(i, c int32) float64 {
	row := p.g.row(int(i))
	var s float64
	for _, j := range p.rows[c] {
		if j == i {
			s += p.g.weight[i] * p.g.norm[i]
		} else {
			s += p.g.weight[j] * float64(row[j])
		}
	}
	return s
}

// joins returns how much inertia (and price) rises when row i joins cluster c,
// which it is not in.
func (p *partition) joins(i, c int32) float64 {
	w, m := p.g.weight[i], p.mass[c]
	if m == 0 {
		return p.price
	}
	return w / (m + w) * (m*p.g.norm[i] - 2*p.product(i, c) + p.sum2[c]/m)
}

// leaves returns how much inertia (and price) falls when row i leaves its cluster.
func (p *partition) leaves(i int32) float64 {
	c := p.of[i]
	if len(p.rows[c]) == 1 {
		return p.price
	}
	w, m := p.g.weight[i], p.mass[c]
	return w / (m - w) * (m*p.g.norm[i] - 2*p.product(i, c) + p.sum2[c]/m)
}

// move puts row i into cluster c, which it is not in.
func (p *partition) move(i, c int32) {
	a, w := p.of[i], p.g.weight[i]
	own := w * w * p.g.norm[i]
	p.sum2[a] += own - 2*w*p.product(i, a)
	p.sum2[c] += own + 2*w*p.product(i, c)
	p.mass[a] -= w
	p.mass[c] += w
	p.of[i] = c
	for at, j := range p.rows[a] {
		if j == i {
			last := len(p.rows[a]) - 1
			p.rows[a][at] = p.rows[a][last]
			p.rows[a] = p.rows[a][:last]
			break
		}
	}
	if len(p.rows[c]) == 0 {
		p.open++
	}
	p.rows[c] = append(p.rows[c], i)
	if len(p.rows[a]) == 0 {
		p.open--
		p.mass[a], p.sum2[a] = 0, 0
	}
}

// empty returns a cluster without rows; there must be one.
func (p *partition) empty() int32 {
	for c, rows := range p.rows {
		if len(rows) == 0 {
			return int32(c)
		}
	}
	panic("kmeans: no cluster is empty")
}

// rounding is the share of a row's weighted squared norm below which a gain may
// be an error of the float32 products that it is the difference of.
const rounding = 1e-6

// exactness is the share of the inertia of all rows in one cluster below which a
// gain may be a float64 error, so that moves cannot go in circles.
const exactness = 1e-12

// hartigan moves single rows to where the inertia falls most, until no move of a
// row lowers it by more than rounding, and returns the number of passes.
func (p *partition) hartigan() (passes int) {
	for i := range p.propose.seen {
		p.propose.seen[i] = -1
	}
	for passes = 1; ; passes++ {
		for c, rows := range p.rows {
			p.sum2[c] = p.g.squaredSum(rows)
		}
		if p.pass(0, nil) == 0 {
			return passes
		}
	}
}

// pass offers every row its best move and returns how many were made. Windows
// of rows look for their moves at once, on all workers; the moves are then made
// one after the other, each only if it still pays. At a temperature above 0 every
// alternative, staying included, is credited with temperature × a Gumbel variate:
// the row's new cluster is then a sample from the Gibbs distribution,
// exp(−inertia/temperature).
func (p *partition) pass(temperature float64, rng *rand.Rand) (moves int) {
	least := exactness * p.g.totalInertia()
	q := p.propose
	q.temperature = float32(temperature)
	for q.from = 0; q.from < p.g.n; q.from += window {
		if temperature > 0 {
			q.seed = rng.Uint64()
		}
		if p.price > 0 {
			p.haggle()
		}
		q.lists.fill(p.of)
		q.clock++
		rows := min(window, p.g.n-q.from)
		p.g.pool.Run((rows+lanes-1)/lanes, q)
		for at, c := range q.to[:rows] {
			i := int32(q.from + at)
			from := p.of[i]
			last := len(p.rows[from]) == 1
			switch {
			case c == stay,
				last && (p.price == 0 || p.open <= p.least),
				c == beAlone && (last || p.open == p.k):
				continue
			case c == beAlone:
				c = p.empty()
			case len(p.rows[c]) == 0:
				continue // its last row left since
			}
			gain := p.leaves(i) - p.joins(i, c) + float64(q.luck[at])
			if gain > max(least, rounding*p.g.weight[i]*p.g.norm[i]) {
				q.changed[c] = q.clock
				p.move(i, c)
				moves++
			}
			// The row leaves; or its move no longer pays, and it has to look again.
			q.changed[from] = q.clock
		}
	}
	return moves
}
