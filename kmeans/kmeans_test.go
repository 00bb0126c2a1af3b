package kmeans

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// eps32 is float32's unit roundoff. Gram entries carry a few of them, relative to
// the squared norms of the centred rows; what is compared below is sums of those.
const eps32 = 1.0 / (1 << 24)

type goldenCase struct {
	Name  string
	N     int
	D     int
	K     int
	X     []float32
	Start []int32
	Lloyd struct {
		Assign  []int32
		Inertia float64
		Passes  int
	}
	Loose struct {
		Assign []int32
		Passes int
	}
	WardCosts  []float64 `json:"ward_costs"`
	Silhouette []float64
}

func goldens(t *testing.T) []goldenCase {
	t.Helper()
	var all []goldenCase
	golden.JSON(t, "testdata/golden.json", &all)
	return all
}

var pools = []*kernel.Pool{kernel.NewPool(1), kernel.NewPool(2), kernel.NewPool(5)}

// fromRows runs Lloyd's algorithm from the given rows as centroids.
func fromRows(x []float32, n, d int, start []int32, tol float64) (assign []int32, passes int) {
	r := distinctRows(x, n, d)
	at := make([]int32, n)
	for i := range r.count() {
		for _, j := range r.copies(i) {
			at[j] = int32(i)
		}
	}
	own := make([]int32, len(start))
	for c, i := range start {
		own[c] = at[i]
	}
	l := newLloyd(newGram(r, pools[0]), len(start))
	l.startFrom(own)
	passes = l.run(300, tol)
	return r.expand(l.of), passes
}

func TestLloydIsScikitLearns(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.Name, func(t *testing.T) {
			assign, passes := fromRows(g.X, g.N, g.D, g.Start, 0)
			if !slices.Equal(assign, g.Lloyd.Assign) || passes != g.Lloyd.Passes {
				t.Errorf("got %v after %d passes, expected %v after %d", assign, passes, g.Lloyd.Assign, g.Lloyd.Passes)
			}
			golden.NearValue(t, "inertia", inertia(t, g.X, g.N, g.D, assign, nil), g.Lloyd.Inertia, 1e-9*g.Lloyd.Inertia)
			assign, passes = fromRows(g.X, g.N, g.D, g.Start, 0.05)
			if !slices.Equal(assign, g.Loose.Assign) {
				t.Errorf("with a tolerance: got %v after %d passes, expected %v after %d", assign, passes, g.Loose.Assign, g.Loose.Passes)
			}
		})
	}
}

func TestWardIsScipys(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.Name, func(t *testing.T) {
			tree, err := Ward(g.X, g.N, g.D, nil)
			if err != nil {
				t.Fatal(err)
			}
			largest := g.WardCosts[g.N-2]
			for i, m := range tree.merges {
				golden.NearValue(t, "the cost of a merge", m.cost, g.WardCosts[i], 16*eps32*largest)
			}
			for k := 1; k <= g.N; k++ {
				assign := tree.Cut(k)
				if got := clusters(assign); got != k {
					t.Fatalf("Cut(%d) has %d clusters", k, got)
				}
				golden.NearValue(t, "the tree's inertia", tree.Inertia(k), inertia(t, g.X, g.N, g.D, assign, pools[0]), 64*eps32*largest)
			}
		})
	}
}

func TestSilhouetteIsScikitLearns(t *testing.T) {
	for _, g := range goldens(t) {
		mean, each, err := Silhouette(g.X, g.N, g.D, g.Lloyd.Assign, nil)
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for i, v := range each {
			sum += v
			golden.NearValue(t, g.Name+": a row's silhouette", v, g.Silhouette[i], 1e-5)
		}
		golden.NearValue(t, g.Name+": mean silhouette", mean, sum/float64(g.N), 1e-12)
	}
}

// matrix draws small matrices, with equal rows, zero rows and rows far out.
func matrix(t *rapid.T) (x []float32, n, d int) {
	n, d = rapid.IntRange(1, 40).Draw(t, "n"), rapid.IntRange(1, 12).Draw(t, "d")
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "matrix"), 0))
	scale := float32(math.Pow(10, float64(rapid.IntRange(-30, 30).Draw(t, "exponent"))))
	offset := float32(rapid.IntRange(0, 3).Draw(t, "offset"))
	x = make([]float32, n*d)
	for i := range n {
		row := x[i*d : (i+1)*d]
		switch from := rng.IntN(i + 1); rng.IntN(6) {
		case 0:
			copy(row, x[from*d:(from+1)*d])
		case 1: // a zero row
		default:
			for j := range row {
				row[j] = (offset + float32(rng.NormFloat64())) * scale
			}
		}
	}
	return x, n, d
}

func options(t *rapid.T, n int) Options {
	return Options{
		K:         rapid.IntRange(1, n).Draw(t, "k"),
		Algorithm: rapid.SampledFrom([]Algorithm{AlgorithmKMeans, AlgorithmWard, AlgorithmBest}).Draw(t, "algorithm"),
		Restarts:  rapid.IntRange(1, 4).Draw(t, "restarts"),
		Effort:    rapid.IntRange(1, 3).Draw(t, "effort"),
		Seed:      rapid.Uint64().Draw(t, "seed"),
	}
}

// naive is the inertia and centroids of a partition, written as their definition.
func naive(x []float32, n, d, k int, assign []int32) (float64, []float64) {
	mean, size := make([]float64, k*d), make([]float64, k)
	for i := range n {
		size[assign[i]]++
		for j := range d {
			mean[int(assign[i])*d+j] += float64(x[i*d+j])
		}
	}
	for c := range k {
		for j := range d {
			mean[c*d+j] /= size[c]
		}
	}
	var s float64
	for i := range n {
		for j := range d {
			e := float64(x[i*d+j]) - mean[int(assign[i])*d+j]
			s += e * e
		}
	}
	return s, mean
}

func TestClusterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, n, d := matrix(t)
		o := options(t, n)
		o.Silhouette = true
		r, err := Cluster(x, n, d, o)
		if err != nil {
			t.Fatal(err)
		}
		if want, _, err := Silhouette(x, n, d, r.Assign, nil); err != nil || r.Silhouette != want {
			t.Fatalf("silhouette is %g, expected %g", r.Silhouette, want)
		}
		sizes := make([]int32, o.K)
		for _, c := range r.Assign {
			sizes[c]++
		}
		if slices.Contains(sizes, 0) || !slices.Equal(sizes, r.Sizes) {
			t.Fatalf("sizes are %v, counted %v", r.Sizes, sizes)
		}
		inertia, mean := naive(x, n, d, o.K, r.Assign)
		if !(math.Abs(inertia-r.Inertia) <= 1e-12*inertia) {
			t.Fatalf("inertia is %g, expected %g", r.Inertia, inertia)
		}
		for i, v := range r.Centroids {
			if v != float32(mean[i]) {
				t.Fatalf("centroid value %d is %g, expected %g", i, v, mean[i])
			}
		}
		// The same bytes for any number of workers.
		for _, pool := range pools {
			o.Pool = pool
			again, err := Cluster(x, n, d, o)
			if err != nil || !slices.Equal(again.Assign, r.Assign) || !slices.Equal(again.Centroids, r.Centroids) || again.Inertia != r.Inertia {
				t.Fatalf("%d workers: a different result (error %v)", pool.Workers(), err)
			}
		}
		// The same partition for any order of the rows, unless equal rows had to
		// be separated.
		order := rand.New(rand.NewPCG(o.Seed, 1)).Perm(n)
		shuffled := make([]float32, 0, n*d)
		for _, i := range order {
			shuffled = append(shuffled, x[i*d:(i+1)*d]...)
		}
		s, err := Cluster(shuffled, n, d, o)
		if err != nil {
			t.Fatal(err)
		}
		if rows := distinctRows(x, n, d); rows.count() >= o.K {
			back := make([]int32, n)
			for at, i := range order {
				back[i] = s.Assign[at]
			}
			if !slices.Equal(renumber(back, o.K), r.Assign) {
				t.Fatalf("rows in another order: %v, expected %v", back, r.Assign)
			}
			// Equal rows share a cluster.
			for i := range rows.count() {
				for _, j := range rows.copies(i) {
					if r.Assign[j] != r.Assign[rows.copies(i)[0]] {
						t.Fatalf("row %d is not with its copies", j)
					}
				}
			}
		} else if r.Inertia != 0 || s.Inertia != 0 {
			t.Fatalf("inertia is %g with a cluster for every distinct row", r.Inertia)
		}
	})
}

// Where the matrix is c distinct rows repeated, c clusters are exact: inertia 0,
// sizes the multiplicities, centroids the rows, bit by bit.
func TestRepeatedRowsAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const c, d = 9, 7
	distinct := make([]float32, c*d)
	for i := range distinct {
		distinct[i] = float32(rng.NormFloat64()) / 3
	}
	distinct[3] = float32(math.Copysign(0, -1))
	var x []float32
	var want []int32
	for copies := range 2 * c {
		for i := range c {
			if copies <= 2*i {
				x = append(x, distinct[i*d:(i+1)*d]...)
				want = append(want, int32(i))
			}
		}
	}
	n := len(want)
	for _, a := range []Algorithm{AlgorithmKMeans, AlgorithmWard, AlgorithmBest} {
		r, err := Cluster(x, n, d, Options{K: c, Algorithm: a})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(r.Assign, want) || r.Inertia != 0 {
			t.Errorf("%s: assignment %v, inertia %g", a, r.Assign, r.Inertia)
		}
		for i, v := range r.Centroids {
			if math.Float32bits(v) != math.Float32bits(distinct[i]) {
				t.Errorf("%s: centroid value %d is %g, expected %g", a, i, v, distinct[i])
			}
		}
		if silhouette, _, err := Silhouette(x, n, d, r.Assign, nil); err != nil || silhouette != float64(n-1)/float64(n) {
			t.Errorf("silhouette is %g: expected 1 for each row but the one that is alone", silhouette)
		}
	}
}

// assertLocal checks by brute force, in float64 from x, that no move of a row to
// another cluster lowers the inertia by more than rounding.
func assertLocal(t *rapid.T, x []float32, n, d, k int, assign []int32) {
	inertia, _ := naive(x, n, d, k, assign)
	whole, _ := naive(x, n, d, 1, make([]int32, n))
	for i := range n {
		from := assign[i]
		alone := true
		for j, c := range assign {
			alone = alone && (j == i || c != from)
		}
		if alone {
			continue
		}
		for c := range int32(k) {
			assign[i] = c
			// A gain is a difference of products with errors of eps32 times the
			// squared norms, summed over a cluster, on top of hartigan's threshold.
			if after, _ := naive(x, n, d, k, assign); !(after >= inertia-(rounding+float64(n)*4*eps32)*whole) {
				t.Fatalf("moving row %d from cluster %d to %d lowers the inertia from %g to %g", i, from, c, inertia, after)
			}
		}
		assign[i] = from
	}
}

func TestHartiganPasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, n, d := matrix(t)
		r := distinctRows(x, n, d)
		u := r.count()
		if u < 2 {
			return
		}
		k := rapid.IntRange(1, u-1).Draw(t, "k")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "start"), 0))
		start := make([]int32, u)
		for at, i := range rng.Perm(u) {
			start[i] = int32(at % k)
		}
		p := newPartition(newGram(r, pools[1]), slices.Clone(start), k)
		before := p.inertia()
		p.hartigan()
		if after := p.inertia(); !(after <= before) {
			t.Fatalf("the inertia rose from %g to %g", before, after)
		}
		// What moves kept up to date is what the partition is.
		fresh := newPartition(p.g, p.of, k)
		scale := fresh.inertia() + p.g.totalInertia()
		if !(math.Abs(fresh.inertia()-p.inertia()) <= 1e-6*scale) {
			t.Fatalf("inertia is kept as %g, is %g", p.inertia(), fresh.inertia())
		}
		for i := range u {
			if len(r.copies(i)) > 1 {
				return // equal rows move together, so a single one may have a better place
			}
		}
		assertLocal(t, x, n, d, k, r.expand(p.of))
	})
}

func TestLloydNeverRises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, n, d := matrix(t)
		r := distinctRows(x, n, d)
		k := rapid.IntRange(1, r.count()).Draw(t, "k")
		g := newGram(r, pools[0])
		l := newLloyd(g, k)
		l.startFrom(plusPlus(g, k, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))))
		l.assign()
		before := l.inertia()
		for range 20 {
			l.assign()
			after := l.inertia()
			if !(after <= before+4*float64(n)*eps32*g.totalInertia()) {
				t.Fatalf("a pass raised the inertia from %g to %g", before, after)
			}
			before = after
		}
	})
}

func TestBestIsNeverWorseThanWard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, n, d := matrix(t)
		o := options(t, n)
		o.Algorithm = AlgorithmWard
		ward, err := Cluster(x, n, d, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Algorithm = AlgorithmBest
		best, err := Cluster(x, n, d, o)
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := naive(x, n, d, 1, make([]int32, n))
		if !(best.Inertia <= ward.Inertia+float64(n)*4*eps32*whole) {
			t.Fatalf("inertia is %g, Ward's %g", best.Inertia, ward.Inertia)
		}
	})
}

func TestCentroidWithoutRowsIsRepaired(t *testing.T) {
	// Two of the three starting centroids are one point, so one stays empty; the
	// farthest row, 100, is to fill it.
	x := []float32{0, 1, 2, 100}
	assign, _ := fromRows(x, 4, 1, []int32{0, 0, 1}, 0)
	if clusters(assign) != 3 || !slices.Equal(renumber(assign, 3), []int32{0, 1, 1, 2}) && !slices.Equal(assign, []int32{0, 0, 1, 2}) {
		t.Errorf("got %v", assign)
	}
}

func TestEnds(t *testing.T) {
	x := []float32{1, 2, 3, 4, 5, 7}
	for _, a := range []Algorithm{AlgorithmKMeans, AlgorithmWard, AlgorithmBest} {
		one, err := Cluster(x, 3, 2, Options{K: 1, Algorithm: a})
		if err != nil {
			t.Fatal(err)
		}
		// Means 3 and 13/3; 4+0+4 and (7² + 1² + 8²)/9.
		golden.NearValue(t, "inertia of one cluster", one.Inertia, 8+114.0/9, 1e-12)
		all, err := Cluster(x, 3, 2, Options{K: 3, Algorithm: a})
		if err != nil {
			t.Fatal(err)
		}
		if all.Inertia != 0 || !slices.Equal(all.Centroids, x) {
			t.Errorf("%s: K = n gives centroids %v", a, all.Centroids)
		}
	}
}

func TestErrors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	ok := Options{K: 1, Algorithm: AlgorithmBest}
	for _, c := range []struct {
		x    []float32
		n, d int
		o    Options
		want string
	}{
		{[]float32{1, 2, 3, nan}, 2, 2, ok, "row 1, column 1: expected a finite value, found NaN"},
		{[]float32{inf, 2, 3, nan}, 2, 2, ok, "row 0, column 0: expected a finite value, found -Inf"},
		{[]float32{1, 2, 3}, 2, 2, ok, "expected the values of 2 rows × 2 columns, both at least 1, found 3"},
		{nil, 0, 0, ok, "0 rows"},
		{[]float32{1, 2}, 2, 1, Options{K: 3, Algorithm: AlgorithmWard}, "K: expected 1 to the 2 rows, found 3"},
		{[]float32{1, 2}, 2, 1, Options{K: 0, Algorithm: AlgorithmWard}, "K: expected 1 to the 2 rows, found 0"},
		{[]float32{1, 2}, 2, 1, Options{K: 1, Algorithm: "elkan"}, `Algorithm: expected "kmeans", "ward" or "best", found "elkan"`},
		{[]float32{1, 2}, 2, 1, Options{K: 1, Algorithm: AlgorithmBest, Effort: -1}, "Effort: expected at least 0, found -1"},
		{[]float32{1, 2}, 2, 1, Options{K: 1, Algorithm: AlgorithmBest, Tol: math.NaN()}, "Tol: expected at least 0, found NaN"},
	} {
		if _, err := Cluster(c.x, c.n, c.d, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, expected %q", err, c.want)
		}
	}
	if _, err := Ward([]float32{1, nan}, 2, 1, nil); err == nil || !strings.Contains(err.Error(), "row 1, column 0: expected a finite value, found NaN") {
		t.Errorf("Ward: error is %v", err)
	}
}

// Any bytes, read as float32, are clustered or refused.
func FuzzCluster(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64}, uint8(1), uint8(2), uint8(0))
	f.Add([]byte{255, 255, 127, 127, 255, 255, 127, 255, 1, 0, 0, 0, 0, 0, 0, 128}, uint8(1), uint8(3), uint8(2))
	f.Add(make([]byte, 64), uint8(2), uint8(5), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, d, k, algorithm uint8) {
		width := int(d)%8 + 1
		n := min(len(data)/4/width, 64)
		x := make([]float32, n*width)
		for i := range x {
			x[i] = math.Float32frombits(uint32(data[4*i]) | uint32(data[4*i+1])<<8 | uint32(data[4*i+2])<<16 | uint32(data[4*i+3])<<24)
		}
		o := Options{K: int(k), Algorithm: []Algorithm{AlgorithmKMeans, AlgorithmWard, AlgorithmBest}[algorithm%3], Restarts: 2, Pool: pools[1]}
		r, err := Cluster(x, n, width, o)
		if err != nil {
			return
		}
		if slices.Contains(r.Sizes, 0) || !(r.Inertia >= 0) || len(r.Sizes) != o.K {
			t.Fatalf("sizes %v, inertia %g", r.Sizes, r.Inertia)
		}
	})
}

func TestOfferAVX2(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "values"), 0))
		floats := func(n int) []float32 {
			s := make([]float32, n)
			for i := range s {
				s[i] = float32(rng.NormFloat64())
			}
			return s
		}
		n := rapid.IntRange(lanes, 3*lanes).Draw(t, "n")
		a := offer{
			name: 3, coef: floats(n), g: floats(n*n + lanes), stride: n, norm: floats(lanes), draw: floats(lanes),
			of: make([]int32, lanes), cost: floats(lanes), to: make([]int32, lanes), luck: floats(lanes),
			scale: -2, own: rng.Float32(), share: rng.Float32(), temperature: rng.Float32(),
		}
		for range rapid.IntRange(0, 9).Draw(t, "rows") {
			a.rows = append(a.rows, int32(rng.IntN(n)))
		}
		a.rows = append(a.rows, make([]int32, ahead)...)[:len(a.rows)]
		for i := range a.of {
			a.of[i] = int32(rng.IntN(4))
		}
		b := a
		b.cost, b.to, b.luck = slices.Clone(a.cost), slices.Clone(a.to), slices.Clone(a.luck)
		a.portable()
		b.put()
		for i := range lanes {
			// Ten products of about 1 and their sums, rounded.
			if !(math.Abs(float64(a.cost[i]-b.cost[i])) <= 100*eps32) || a.to[i] != b.to[i] || a.luck[i] != b.luck[i] {
				t.Fatalf("lane %d: got %g for %d, expected %g for %d", i, b.cost[i], b.to[i], a.cost[i], a.to[i])
			}
		}
	})
}

// Enough rows for several windows, so that most passes skip what has not changed.
func TestHartiganSkipsNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const n, d, k = 1100, 24, 250
	x := make([]float32, n*d)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	copy(x[5*d:6*d], x[900*d:901*d]) // a row of weight 2
	r := distinctRows(x, n, d)
	start := make([]int32, r.count())
	for i := range start {
		start[i] = int32(i % k)
	}
	p := newPartition(newGram(r, pools[1]), start, k)
	p.hartigan()
	for i := range int32(r.count()) {
		if len(p.rows[p.of[i]]) == 1 {
			continue
		}
		for c := range int32(k) {
			// The offers' float32 errors are a few eps32 of norms around it.
			if gain := p.leaves(i) - p.joins(i, c); c != p.of[i] && !(gain <= 2*rounding*p.g.weight[i]*p.g.norm[i]) {
				t.Fatalf("row %d would gain %g of %g in cluster %d", i, gain, p.g.norm[i], c)
			}
		}
	}
}

// inertia is Inertia of what cannot be wrong.
func inertia(t *testing.T, x []float32, n, d int, assign []int32, pool *kernel.Pool) float64 {
	t.Helper()
	v, err := Inertia(x, n, d, assign, pool)
	if err != nil {
		t.Error(err)
	}
	return v
}

func TestPartitionErrors(t *testing.T) {
	for _, c := range []struct {
		x      []float32
		assign []int32
		say    string
	}{
		{[]float32{1, 2, 3}, []int32{0, 1}, "kmeans: assign: expected a cluster for each of the 3 rows, found 2"},
		{[]float32{1, 2, 3}, []int32{0, 1, 0, 1}, "kmeans: assign: expected a cluster for each of the 3 rows, found 4"},
		{[]float32{1, 2, 3}, nil, "kmeans: assign: expected a cluster for each of the 3 rows, found 0"},
		{[]float32{1, 2, 3}, []int32{0, 3, 0}, "kmeans: assign[1]: expected a cluster from 0 to 2, found 3"},
		{[]float32{1, 2, 3}, []int32{0, 0, -1}, "kmeans: assign[2]: expected a cluster from 0 to 2, found -1"},
		{[]float32{1, 2}, []int32{0, 0, 0}, "kmeans: expected the values of 3 rows × 1 columns, both at least 1, found 2"},
		{[]float32{1, 2, float32(math.NaN())}, []int32{0, 0, 0}, "kmeans: row 2, column 0: expected a finite value, found NaN"},
	} {
		_, _, err := Silhouette(c.x, 3, 1, c.assign, nil)
		_, err2 := Inertia(c.x, 3, 1, c.assign, nil)
		if err == nil || !strings.HasPrefix(err.Error(), c.say) || err2 == nil || err2.Error() != err.Error() {
			t.Errorf("%v, %v:\n got %v\n and %v\nwant %s", c.x, c.assign, err, err2, c.say)
		}
	}
}
