package kmeans

import (
	"math"

	"mlpfusion/kernel"
)

// best is Ward's partition, improved by moves of single rows.
func best(g *gram, o Options) ([]int32, int) {
	p := newPartition(g, newTree(g).Cut(o.K), o.K)
	passes := p.hartigan()
	return p.of, passes
}

// partition is a clustering that can be changed row by row. All it knows of a
// cluster is its weight and ‖Σ w·x‖², which give its inertia.
type partition struct {
	g    *gram
	k    int
	of   []int32   // n: the cluster of each row
	rows [][]int32 // k: the rows of each cluster
	mass []float64 // k: Σ w
	sum2 []float64 // k: ‖Σ w·x‖²
	propose
}

func newPartition(g *gram, of []int32, k int) *partition {
	p := &partition{g: g, k: k, of: of, rows: make([][]int32, k), mass: make([]float64, k), sum2: make([]float64, k)}
	m := members(of, k)
	for c := range k {
		p.rows[c] = append(p.rows[c], m.of(c)...)
		for _, i := range p.rows[c] {
			p.mass[c] += g.weight[i]
		}
		p.sum2[c] = g.squaredSum(p.rows[c])
	}
	p.propose = propose{p: p, to: make([]int32, window), products: make([]float32, g.pool.Workers()*chunk), cost: make([]float32, g.pool.Workers()*chunk)}
	return p
}

// inertia is Σ w·‖x‖² − Σ_c ‖Σ_{i∈c} w·x‖²/mass_c.
func (p *partition) inertia() float64 {
	s := p.g.totalInertia()
	for c := range p.k {
		s -= p.sum2[c] / p.mass[c]
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

// joins returns how much inertia rises when row i joins cluster c, which it is
// not in; s is product(i, c).
func (p *partition) joins(i, c int32, s float64) float64 {
	w, m := p.g.weight[i], p.mass[c]
	return w / (m + w) * (m*p.g.norm[i] - 2*s + p.sum2[c]/m)
}

// leaves returns how much inertia falls when row i leaves its cluster, in which
// it is not alone.
func (p *partition) leaves(i int32) float64 {
	c := p.of[i]
	w, m := p.g.weight[i], p.mass[c]
	return w / (m - w) * (m*p.g.norm[i] - 2*p.product(i, c) + p.sum2[c]/m)
}

// move puts row i into cluster c.
func (p *partition) move(i, c int32) {
	a, w := p.of[i], p.g.weight[i]
	own := w * w * p.g.norm[i]
	p.sum2[a] += own - 2*w*p.product(i, a)
	p.sum2[c] += own + 2*w*p.product(i, c)
	p.mass[a] -= w
	p.mass[c] += w
	p.of[i] = c
	rows := p.rows[a]
	for at, j := range rows {
		if j == i {
			rows[at] = rows[len(rows)-1]
			p.rows[a] = rows[:len(rows)-1]
			break
		}
	}
	p.rows[c] = append(p.rows[c], i)
}

const (
	window = 1024 // rows whose moves are proposed from one state
	chunk  = 64   // rows that one worker proposes for at a time
)

// hartigan moves single rows to where the inertia falls most, until no move of a
// row lowers it by more than rounding, and returns the number of passes.
// Windows of rows look for their best moves at once, on all workers; the moves
// are then made one after the other, each only if it still pays.
func (p *partition) hartigan() (passes int) {
	for moved := true; moved; passes++ {
		moved = false
		for i0 := 0; i0 < p.g.n; i0 += window {
			rows := min(window, p.g.n-i0)
			p.from = i0
			p.g.pool.Run((rows+chunk-1)/chunk, &p.propose)
			for at, c := range p.to[:rows] {
				i := int32(i0 + at)
				if c < 0 || len(p.rows[p.of[i]]) == 1 {
					continue
				}
				if gain := p.leaves(i) - p.joins(i, c, p.product(i, c)); gain > rounding*p.g.weight[i]*p.g.norm[i] {
					p.move(i, c)
					moved = true
				}
			}
		}
	}
	return passes
}

// rounding is the share of a row's weighted squared norm below which a gain may
// be an error of the float32 products that it is the difference of.
const rounding = 1e-6

// propose finds the best moves of a window of rows.
type propose struct {
	p        *partition
	from     int
	to       []int32 // window: where a row should go, −1 to stay
	products []float32
	cost     []float32
}

func (q *propose) Do(at, w int) {
	p, g := q.p, q.p.g
	i0 := q.from + at*chunk
	i1 := min(g.n, i0+chunk, q.from+window)
	s := q.products[w*chunk : w*chunk+i1-i0]
	cost := q.cost[w*chunk : w*chunk+i1-i0]
	to := q.to[at*chunk : at*chunk+i1-i0]
	for i := range cost {
		cost[i] = float32(math.Inf(1))
		to[i] = -1
		if len(p.rows[p.of[i0+i]]) > 1 {
			cost[i] = float32(p.leaves(int32(i0 + i)))
		} else {
			cost[i] = 0
		}
	}
	for c := range p.k {
		clear(s)
		for _, j := range p.rows[c] {
			kernel.Axpy(float32(g.weight[j]), g.at[int(j)*g.n+i0:int(j)*g.n+i1], s)
		}
		m, own := float32(p.mass[c]), float32(p.sum2[c]/p.mass[c])
		for i, v := range s {
			wi := float32(g.weight[i0+i])
			if rise := wi / (m + wi) * (m*float32(g.norm[i0+i]) - 2*v + own); rise < cost[i] && p.of[i0+i] != int32(c) {
				cost[i], to[i] = rise, int32(c)
			}
		}
	}
}
