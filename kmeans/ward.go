package kmeans

import (
	"cmp"
	"math"
	"slices"

	"mlpfusion/kernel"
)

// Tree is Ward's hierarchy over n rows: n−1 merges, each of the two clusters
// whose union raises the inertia least. One tree holds a partition for every
// number of clusters.
type Tree struct {
	n      int
	merges []merge // in the order they happen: by cost
}

// merge unites the clusters that hold rows a and b, at the given cost: the rise
// in inertia, which is half the square of the height that scipy reports.
type merge struct {
	a, b int32
	cost float64
}

// Ward builds the tree of the n rows of the row-major n×d matrix x. It returns
// an error, naming the row, for values that are not finite. A nil pool means one
// of GOMAXPROCS workers for this call.
func Ward(x []float32, n, d int, pool *kernel.Pool) (*Tree, error) {
	if err := checkRows(x, n, d); err != nil {
		return nil, err
	}
	if pool == nil {
		pool = kernel.NewPool(0)
		defer pool.Close()
	}
	rows := distinctRows(x, n, d)
	t := &Tree{n: n, merges: make([]merge, 0, n-1)}
	for i := range rows.count() {
		same := rows.copies(i)
		for _, j := range same[1:] {
			t.merges = append(t.merges, merge{a: same[0], b: j})
		}
	}
	g := newGram(rows, pool)
	for _, m := range newTree(g).merges {
		m.a, m.b = rows.copies(int(m.a))[0], rows.copies(int(m.b))[0]
		m.cost *= g.unit
		t.merges = append(t.merges, m)
	}
	return t, nil
}

// Cut returns the cluster of each row in the partition into k clusters, numbered
// in the order of their first rows. It panics unless 1 ≤ k ≤ n.
func (t *Tree) Cut(k int) []int32 {
	if k < 1 || k > t.n {
		panic("kmeans: Cut: k is out of range")
	}
	root := make([]int32, t.n)
	for i := range root {
		root[i] = int32(i)
	}
	find := func(i int32) int32 {
		for root[i] != i {
			root[i] = root[root[i]]
			i = root[i]
		}
		return i
	}
	for _, m := range t.merges[:t.n-k] {
		// The smaller row is the root, so that a cluster's first row is.
		a, b := find(m.a), find(m.b)
		root[max(a, b)] = min(a, b)
	}
	assign := make([]int32, t.n)
	next := int32(0)
	for i := range assign {
		if r := find(int32(i)); int(r) == i {
			assign[i] = next
			next++
		} else {
			assign[i] = assign[r]
		}
	}
	return assign
}

// Inertia returns the inertia of the partition into k clusters, as the sum of the
// merges' costs. It panics unless 1 ≤ k ≤ n.
func (t *Tree) Inertia(k int) float64 {
	if k < 1 || k > t.n {
		panic("kmeans: Inertia: k is out of range")
	}
	var s float64
	for _, m := range t.merges[:t.n-k] {
		s += m.cost
	}
	return s
}

// newTree runs Ward's method by nearest-neighbour chains (Murtagh 1983): grow a
// chain of clusters, each the nearest of the one before, until two are each
// other's nearest, and merge those. Distances after a merge follow from those
// before (Lance–Williams), in float64. They live in G's upper triangle, which is
// put back at the end, so Ward takes no memory of its own.
func newTree(g *gram) *Tree {
	n := g.n
	t := &Tree{n: n, merges: make([]merge, 0, max(0, n-1))}
	w := &wardState{stride: g.stride, d: g.at, mass: slices.Clone(g.weight), active: make([]int32, n)}
	for i := range n {
		w.active[i] = int32(i)
	}
	g.pool.Run(n, (*unions)(g))
	chain := make([]int32, 0, n)
	for len(w.active) > 1 {
		if len(chain) == 0 {
			chain = append(chain, w.active[0])
		}
		a := chain[len(chain)-1]
		b := int32(-1)
		if len(chain) > 1 {
			b = chain[len(chain)-2]
		}
		next, dist := w.nearest(a, b)
		if next != b {
			chain = append(chain, next)
			continue
		}
		t.merges = append(t.merges, merge{min(a, b), max(a, b), float64(dist) / 2})
		chain = chain[:len(chain)-2]
		w.merge(min(a, b), max(a, b), float64(dist))
	}
	slices.SortStableFunc(t.merges, func(a, b merge) int { return cmp.Compare(a.cost, b.cost) })
	g.mirror()
	return t
}

type unions gram

// Do fills row i of the upper triangle with twice the rise in inertia from uniting
// row i and each later one.
func (u *unions) Do(i, _ int) {
	g := (*gram)(u)
	row := g.row(i)
	for j := i + 1; j < g.n; j++ {
		row[j] = float32(2 * g.weight[i] * g.weight[j] / (g.weight[i] + g.weight[j]) * g.distance2(i, j))
	}
}

// wardState holds the clusters that are left, each named by its smallest row.
type wardState struct {
	stride int
	d      []float32 // d[a·stride+b], a < b: distance of clusters a and b
	mass   []float64
	active []int32 // ascending
}

// nearest returns the cluster nearest to a and its distance; among equals it
// prefers the given one (which ends chains), then the smallest.
func (w *wardState) nearest(a, prefer int32) (int32, float32) {
	best, dist := int32(-1), float32(math.Inf(1))
	split, _ := slices.BinarySearch(w.active, a)
	for _, b := range w.active[:split] {
		if v := w.d[int(b)*w.stride+int(a)]; v < dist {
			best, dist = b, v
		}
	}
	row := w.d[int(a)*w.stride : (int(a)+1)*w.stride]
	for _, b := range w.active[split+1:] {
		if v := row[b]; v < dist {
			best, dist = b, v
		}
	}
	if prefer >= 0 && *w.at(a, prefer) <= dist {
		return prefer, *w.at(a, prefer)
	}
	return best, dist
}

func (w *wardState) at(a, b int32) *float32 {
	return &w.d[int(min(a, b))*w.stride+int(max(a, b))]
}

// merge puts cluster b into cluster a < b.
func (w *wardState) merge(a, b int32, dist float64) {
	at, _ := slices.BinarySearch(w.active, b)
	w.active = slices.Delete(w.active, at, at+1)
	ma, mb := w.mass[a], w.mass[b]
	for _, k := range w.active {
		if k == a {
			continue
		}
		mk := w.mass[k]
		da, db := w.at(a, k), *w.at(b, k)
		d := float32(((ma+mk)*float64(*da) + (mb+mk)*float64(db) - mk*dist) / (ma + mb + mk))
		// No cluster comes nearer by a merge. The chain rests on that, so rounding
		// must not break it.
		*da = max(d, min(*da, db))
	}
	w.mass[a] = ma + mb
}
