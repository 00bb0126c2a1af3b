package kmeans

import (
	"math"
	"math/rand/v2"
)

// An effort of 1 is effortPasses annealing passes, from the hot temperature to the
// cold one, both in units of the mean inertia of a row. These were the best of
// those tried: docs/decisions/clustering.md.
const (
	effortPasses = 100
	hot          = 0.03
	cold         = 0.006
)

// best is Ward's partition, annealed.
func best(g *gram, o Options) ([]int32, int) {
	ward := newTree(g).Cut(o.K)
	if o.K == 1 {
		return ward, 0
	}
	p := newPartition(g, ward, o.K)
	before := p.inertia()
	passes := p.anneal(o.Effort*effortPasses, rand.New(rand.NewPCG(o.Seed, 0)), o.Progress)
	if p.inertia() > before {
		// Never worse than Ward's.
		p = newPartition(g, ward, o.K)
		passes += p.hartigan()
	}
	return p.of, passes
}

// anneal samples partitions at a falling temperature and ends in a partition that
// no move of a row improves. It returns the number of passes over all rows.
func (p *partition) anneal(rounds int, rng *rand.Rand, progress func(done, total int)) (passes int) {
	p.least = max(1, p.k-max(1, p.k/50))
	for i := range p.of {
		p.price = max(p.price, p.leaves(int32(i)))
	}
	mean := p.inertia() / float64(p.g.n)
	for r := range rounds {
		p.pass(mean*hot*math.Pow(cold/hot, float64(r)/float64(rounds)), rng)
		progress(r, rounds)
	}
	p.price = 0
	for p.open < p.k {
		// The row whose leaving pays most.
		most, gain := int32(0), math.Inf(-1)
		for i := range p.of {
			if len(p.rows[p.of[i]]) == 1 {
				continue
			}
			if v := p.leaves(int32(i)); v > gain {
				most, gain = int32(i), v
			}
		}
		p.move(most, p.empty())
	}
	progress(rounds, rounds)
	return rounds + p.hartigan()
}

// haggle moves the price of a cluster so that their number keeps between its bounds.
func (p *partition) haggle() {
	aim := float64(p.k+p.least) / 2
	p.price *= 1 + 0.5*(float64(p.open)-aim)/float64(p.k)
}
