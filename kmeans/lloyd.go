package kmeans

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// lloydRestarts runs Lloyd's algorithm from o.Restarts k-means++ starts, side by
// side on the workers, and returns the partition of the lowest inertia (the
// earliest among equals) and its number of passes.
func lloydRestarts(g *gram, o Options) ([]int32, int) {
	job := &restarts{g: g, o: o, best: make([]lloydRun, g.pool.Workers())}
	g.pool.Run(o.Restarts, job)
	best := slices.MinFunc(slices.DeleteFunc(job.best, func(r lloydRun) bool { return r.of == nil }), compareRuns)
	o.Progress(o.Restarts, o.Restarts)
	return best.of, best.passes
}

type restarts struct {
	g    *gram
	o    Options
	done atomic.Int64
	best []lloydRun // of each worker
}

type lloydRun struct {
	start, passes int
	inertia       float64
	of            []int32
}

func compareRuns(a, b lloydRun) int {
	return cmp.Or(cmp.Compare(a.inertia, b.inertia), cmp.Compare(a.start, b.start))
}

func (r *restarts) Do(start, w int) {
	rng := rand.New(rand.NewPCG(r.o.Seed, uint64(start)))
	l := newLloyd(r.g, r.o.K)
	l.startFrom(plusPlus(r.g, r.o.K, rng))
	passes := l.run(r.o.MaxIter, r.o.Tol)
	run := lloydRun{start, passes, l.inertia(), l.of}
	if r.best[w].of == nil || compareRuns(run, r.best[w]) < 0 {
		r.best[w] = run
	}
	done := int(r.done.Add(1))
	if w == 0 {
		r.o.Progress(done, r.o.Restarts)
	}
}

// plusPlus picks k rows as scikit-learn's greedy k-means++ does: each next one is
// the best of 2+⌊ln k⌋ candidates, drawn with probability proportional to their
// weight times their squared distance to the nearest row picked so far.
func plusPlus(g *gram, k int, rng *rand.Rand) []int32 {
	n := g.n
	picked := make([]int32, 0, k)
	pick := func(weight func(i int) float64, sum float64) int32 {
		left := rng.Float64() * sum
		for i := range n {
			if left -= weight(i); left < 0 {
				return int32(i)
			}
		}
		return int32(n - 1)
	}
	var sum float64
	for _, w := range g.weight {
		sum += w
	}
	picked = append(picked, pick(func(i int) float64 { return g.weight[i] }, sum))
	nearest := make([]float32, n)
	trial := make([]float32, n)
	kept := make([]float32, n)
	for i := range nearest {
		nearest[i] = float32(math.Inf(1))
	}
	potential := g.nearer(nearest, nearest, picked[0])
	trials := 2 + int(math.Log(float64(k)))
	for len(picked) < k {
		best, bestPotential := int32(-1), math.Inf(1)
		for range trials {
			c := pick(func(i int) float64 { return g.weight[i] * float64(nearest[i]) }, potential)
			if p := g.nearer(trial, nearest, c); p < bestPotential {
				best, bestPotential = c, p
				trial, kept = kept, trial
			}
		}
		picked = append(picked, best)
		nearest, kept = kept, nearest
		potential = bestPotential
	}
	return picked
}

// nearer sets to_i = min(from_i, ‖x_i − x_c‖²) and returns Σ weight_i·to_i.
func (g *gram) nearer(to, from []float32, c int32) float64 {
	row := g.row(int(c))
	norm := float32(g.norm[c])
	var sum float64
	for i, v := range row {
		d := max(0, float32(g.norm[i])+norm-2*v)
		d = min(d, from[i])
		to[i] = d
		sum += g.weight[i] * float64(d)
	}
	return sum
}

// lloyd is one run of Lloyd's algorithm in terms of G. Centroid c is
// Σ_{j∈c} a_j·x_j, so ⟨x_i, centroid⟩ is a sum of G's entries.
type lloyd struct {
	g       *gram
	k       int
	of      []int32 // n: the cluster of each row
	centres *memberLists
	coef    []float32 // n: −2·a_j
	norm    []float64 // k: squared norm of the centroids
	mass    []float64 // k: weight of the rows that a centroid is the mean of
	near    []float32 // n, and lanes more: ‖x_i − centroid‖² − ‖x_i‖² for the centroid of of[i]

	zero, luck []float32 // lanes: what an offer has no use for here
	none       []int32
}

func newLloyd(g *gram, k int) *lloyd {
	l := &lloyd{
		g: g, k: k, of: make([]int32, g.n, g.n+lanes), coef: make([]float32, g.n), near: make([]float32, g.n+lanes),
		norm: make([]float64, k), mass: make([]float64, k),
		zero: make([]float32, lanes), luck: make([]float32, lanes), none: make([]int32, lanes),
	}
	for i := range l.none {
		l.none[i] = -1
	}
	return l
}

// startFrom takes the given k rows as the centroids.
func (l *lloyd) startFrom(rows []int32) {
	l.centres = &memberLists{rows: append(slices.Clone(rows), make([]int32, ahead)...), first: make([]int32, l.k+1)}
	for c, i := range rows {
		l.centres.first[c+1] = int32(c + 1)
		l.coef[i] = -2
		l.norm[c] = l.g.norm[i]
		l.mass[c] = 1
	}
}

// run repeats assignment and update until no row moves, the centroids move less
// than tol says, or maxIter passes are done, and returns their number.
func (l *lloyd) run(maxIter int, tol float64) int {
	limit := tol * l.g.totalInertia() / (float64(l.g.copies) * float64(l.g.columns))
	before := make([]int32, l.g.n)
	for i := range before {
		before[i] = -1
	}
	for pass := 1; ; pass++ {
		l.assign()
		if slices.Equal(l.of, before) || pass == maxIter {
			return pass
		}
		copy(before, l.of)
		if shift := l.update(); tol > 0 && shift <= limit {
			l.assign()
			return pass + 1
		}
	}
}

// assign gives each row to the nearest centroid (the first among equals), and
// then a row to each centroid that got none: the farthest from its own centroid
// that is not alone.
func (l *lloyd) assign() {
	n := l.g.n
	for i := range l.near {
		l.near[i] = float32(math.Inf(1))
	}
	o := offer{coef: l.coef, stride: l.g.stride, norm: l.zero, draw: l.zero, of: l.none, luck: l.luck, scale: 1, share: 1}
	for i0 := 0; i0 < n; i0 += lanes {
		o.g, o.cost, o.to = l.g.at[i0:], l.near[i0:i0+lanes], l.of[i0:i0+lanes]
		for c := range int32(l.k) {
			o.name, o.rows, o.own = c, l.centres.of(int(c)), float32(l.norm[c])
			o.put()
		}
	}
	size := make([]int, l.k)
	for _, c := range l.of {
		size[c]++
	}
	if !slices.Contains(size, 0) {
		return
	}
	farthest := make([]int, n)
	for i := range farthest {
		farthest[i] = i
	}
	distance := func(i int) float64 { return l.g.norm[i] + float64(l.near[i]) }
	slices.SortStableFunc(farthest, func(a, b int) int { return cmp.Compare(distance(b), distance(a)) })
	for c := range size {
		for at := 0; size[c] == 0; at++ {
			if i := farthest[at]; size[l.of[i]] > 1 {
				size[l.of[i]]--
				size[c]++
				l.of[i] = int32(c)
			}
		}
	}
}

// update moves the centroids to the means of their rows, and returns the sum of
// the squared distances they moved.
func (l *lloyd) update() (shift float64) {
	// ⟨x_i, old centroid⟩ is known for the rows assigned to it; their mean is the
	// product of the old centroid and the new one.
	g, old := l.g, slices.Clone(l.norm)
	cross := make([]float64, l.k)
	clear(l.mass)
	for i, c := range l.of {
		cross[c] += g.weight[i] * (old[c] - float64(l.near[i])) / 2
		l.mass[c] += g.weight[i]
	}
	l.centres = members(l.of, l.k)
	for i, c := range l.of {
		l.coef[i] = float32(-2 * g.weight[i] / l.mass[c])
	}
	for c := range l.k {
		l.norm[c] = g.squaredSum(l.centres.of(c)) / (l.mass[c] * l.mass[c])
		shift += old[c] + l.norm[c] - 2*cross[c]/l.mass[c]
	}
	return shift
}

// inertia is that of the partition, by the means of its clusters.
func (l *lloyd) inertia() float64 {
	l.update()
	s := l.g.totalInertia()
	for c := range l.k {
		s -= l.norm[c] * l.mass[c]
	}
	return s
}

// squaredSum returns ‖Σ_{i∈rows} weight_i·x_i‖².
func (g *gram) squaredSum(rows []int32) float64 {
	var s float64
	for a, i := range rows {
		row := g.row(int(i))
		var t float64
		for _, j := range rows[:a] {
			t += g.weight[j] * float64(row[j])
		}
		s += g.weight[i] * (2*t + g.weight[i]*g.norm[i])
	}
	return s
}
