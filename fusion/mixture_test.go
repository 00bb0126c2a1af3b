package fusion

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// routedMatrix are inputs of which each token goes to the k experts with the largest
// logits, by the softmax over these.
type routedMatrix struct {
	matrix
	router []float32
	k      int
}

func routedTo(m *Mixture, k int, x []float32) routedMatrix {
	return routedMatrix{matrix{m.Experts[0].Hidden, x}, slices.Clone(m.Router), k}
}

func (r routedMatrix) EachRouted(f func(x []float32, experts []int32, weights []float32, tokens int) error) error {
	n, count := len(r.router)/r.hidden, len(r.x)/r.hidden
	var experts []int32
	var weights []float32
	for i := range count {
		logits := make([]float64, n)
		for e := range logits {
			for c := range r.hidden {
				logits[e] += float64(r.x[i*r.hidden+c]) * float64(r.router[e*r.hidden+c])
			}
		}
		order := seq(n)
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
		var z float64
		for _, e := range order[:r.k] {
			z += math.Exp(logits[e] - logits[order[0]])
		}
		for _, e := range order[:r.k] {
			experts, weights = append(experts, int32(e)), append(weights, float32(math.Exp(logits[e]-logits[order[0]])/z))
		}
	}
	return f(r.x, experts, weights, count)
}

func compressMixture(t fataler, name string, m *Mixture, o Options) *FusedMixture {
	t.Helper()
	method, err := Lookup(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if o.Pool == nil {
		o.Pool = testPool
	}
	f, err := method.CompressMixture(context.Background(), m, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return f
}

// The methods beside scripts/goldens/fusion.py, which has scipy's assignment and
// hierarchies.
func TestMixtureGolden(t *testing.T) {
	g := openGolden(t, "mixture")
	s := g.ints("shape")
	p, width, n, keep, c := s[0], s[1], s[2], s[3], s[4]
	up, down, x := g.get("up"), g.get("down"), g.get("x")
	m := &Mixture{Router: g.get("router")}
	for e := range n {
		m.Experts = append(m.Experts, &MLP{Hidden: p, Width: width, Act: kernel.ReLU,
			Up: up[e*width*p : (e+1)*width*p], Down: down[e*width*p : (e+1)*width*p]})
	}
	if got := m.Experts[1].align(m.Experts[0], testPool); !slices.Equal(got, g.ints("order")) {
		t.Errorf("order of expert 1: %v, want %v", got, g.ints("order"))
	}
	o := Options{Width: width, Pool: testPool, Inputs: routedTo(m, 1, x), Experts: keep}
	routes, err := m.route(t.Context(), o, false)
	if err != nil || !slices.Equal(routes.tokens, g.ints("usage")) {
		t.Errorf("usage %v (%v), want %v", routes.tokens, err, g.ints("usage"))
	}
	check := func(name string, f *FusedMixture) {
		var y []float32
		for e := range n {
			y = append(y, output(f.Expert(e), p, x)...)
		}
		golden.NearNorm(t, name, y, g.get(name+".y"), rounding)
	}
	for name, short := range map[string]string{"mc-smoe": "mc", "hc-smoe": "hc"} {
		f := compressMixture(t, name, m, o)
		if !slices.Equal(f.Of, g.ints(short+".of")) {
			t.Fatalf("%s: groups %v, want %v", name, f.Of, g.ints(short+".of"))
		}
		check(short, f)
	}
	o.Width, o.Experts, o.Clustering = c, 0, kmeans.AlgorithmWard
	f := compressMixture(t, "shared", m, o)
	if want := float64(g.get("shared.inertia")[0]); !(math.Abs(f.Blocks[0].Inertia-want) <= 1e-6*want) {
		t.Errorf("shared: inertia %g, want %g", f.Blocks[0].Inertia, want)
	}
	for e, used := range g.ints("shared.used") {
		if got := f.Expert(e).Compact().Width; got != used {
			t.Errorf("shared: expert %d uses %d units, want %d", e, got, used)
		}
	}
	check("shared", f)
}

// drawMixture draws n experts and a router.
func drawMixture(t *rapid.T, n int) *Mixture {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	hidden, width, gated := rapid.IntRange(2, 6).Draw(t, "hidden"), rapid.IntRange(1, 9).Draw(t, "width"), rapid.Bool().Draw(t, "gated")
	m := &Mixture{Router: tokens(hidden, n, r.Uint64())}
	for range n {
		m.Experts = append(m.Experts, randomMLP(r, hidden, width, gated, false))
	}
	return m
}

// Copies of an expert, with their units in any order, are one expert: merging
// them gives it back to the last bit (hc-smoe, which does not align units, where
// they are in the same order).
func TestCopiesMergeExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMixture(t, rapid.IntRange(1, 6).Draw(t, "experts"))
		first := m.Experts[0]
		o := Options{Width: first.Width, Inputs: routedTo(m, 1, tokens(first.Hidden, 40, 3)), Experts: 1}
		for _, name := range []string{"hc-smoe", "mc-smoe", "reap", "dern"} {
			for e := range m.Experts[1:] {
				m.Experts[1+e] = first
				if name != "hc-smoe" {
					m.Experts[1+e] = first.gathered(rapid.Permutation(seq(first.Width)).Draw(t, "order"))
				}
			}
			b := compressMixture(t, name, m, o).Blocks[0]
			// The units lie as in the expert that is used most.
			got, d := b.SubMLPs()
			want, _ := first.SubMLPs()
			if !slices.Equal(sortedRows(got, d), sortedRows(want, d)) {
				t.Fatalf("%s: units %v, want %v", name, got, want)
			}
		}
	})
}

func sortedRows(x []float32, d int) []string {
	var rows []string
	for i := 0; i < len(x); i += d {
		rows = append(rows, fmt.Sprint(x[i:i+d]))
	}
	slices.Sort(rows)
	return rows
}

// Units of E copies fall into the clusters of one, and all P_e are its P.
func TestSharedUnitsOfCopies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMixture(t, rapid.IntRange(1, 5).Draw(t, "experts"))
		first := m.Experts[0]
		for e := range m.Experts {
			m.Experts[e] = first
		}
		c := rapid.IntRange(1, first.Width).Draw(t, "c")
		single := mustCompress(t, "fusion", first, Options{Width: c, Clustering: kmeans.AlgorithmWard})
		f := compressMixture(t, "shared", m, Options{Width: c, Clustering: kmeans.AlgorithmWard})
		x := tokens(first.Hidden, 5, 1)
		for e, p := range f.Scale {
			if !slices.Equal(p, single.Scale) {
				t.Fatalf("P of expert %d is %v, of one alone %v", e, p, single.Scale)
			}
			golden.NearNorm(t, "output", output(f.Expert(e), first.Hidden, x), output(single, first.Hidden, x), cancelled)
		}
	})
}

// Every P_e holds the units of its expert, all of them; at full width nothing
// changes; and what Compact leaves out does nothing.
func TestSharedCounts(t *testing.T) {
	one := kernel.NewPool(1)
	defer one.Close()
	rapid.Check(t, func(t *rapid.T) {
		m := drawMixture(t, rapid.IntRange(1, 5).Draw(t, "experts"))
		first := m.Experts[0]
		all := len(m.Experts) * first.Width
		o := Options{Width: rapid.IntRange(1, all).Draw(t, "c"), Seed: 1}
		f := compressMixture(t, "shared", m, o)
		x := tokens(first.Hidden, 5, 1)
		total := make([]int32, o.Width)
		for e, p := range f.Scale {
			var sum float32
			for k, n := range p {
				sum += n
				total[k] += int32(n)
			}
			if int(sum) != first.Width {
				t.Fatalf("P of expert %d sums to %g, want its %d units", e, sum, first.Width)
			}
			y := output(f.Expert(e), first.Hidden, x)
			compact := f.Expert(e).Compact()
			golden.NearNorm(t, "compact", output(compact, first.Hidden, x), y, cancelled)
			if slices.Contains(compact.Scale, 0) || compact.FLOPs() != f.FLOPs(e) {
				t.Fatalf("expert %d: %d FLOPs with P %v, want %d", e, compact.FLOPs(), compact.Scale, f.FLOPs(e))
			}
			if o.Width == all {
				golden.NearNorm(t, "full width", y, output(m.Experts[e], first.Hidden, x), cancelled)
			}
		}
		if !slices.Equal(total, f.Blocks[0].Sizes) {
			t.Fatalf("P of all experts sum to %v, the clusters are %v", total, f.Blocks[0].Sizes)
		}
		o.Pool = one
		again := compressMixture(t, "shared", m, o)
		if !slices.Equal(again.Blocks[0].Up, f.Blocks[0].Up) || !slices.Equal(again.Blocks[0].Down, f.Blocks[0].Down) {
			t.Fatal("another result with one worker")
		}
	})
}

// Merging to as many experts as there are changes nothing but the order of
// summation; any number of workers gives the same bytes; merged experts can be
// fused on.
func TestMerge(t *testing.T) {
	one := kernel.NewPool(1)
	defer one.Close()
	rapid.Check(t, func(t *rapid.T) {
		m := drawMixture(t, rapid.IntRange(1, 6).Draw(t, "experts"))
		first := m.Experts[0]
		keep := rapid.IntRange(1, len(m.Experts)).Draw(t, "keep")
		o := Options{Width: rapid.IntRange(1, first.Width).Draw(t, "c"), Inputs: routedTo(m, 1, tokens(first.Hidden, 30, 3)), Experts: keep}
		for _, name := range []string{"mc-smoe", "hc-smoe"} {
			f := compressMixture(t, name, m, o)
			if len(f.Blocks) != keep || slices.Max(f.Of) != keep-1 {
				t.Fatalf("%s: %d experts in groups %v, want %d", name, len(f.Blocks), f.Of, keep)
			}
			for e := range m.Experts {
				if keep == len(m.Experts) && o.Width == first.Width && !slices.Equal(f.Expert(e).Up, m.Experts[e].Up) {
					t.Fatalf("%s: expert %d changed though all are kept", name, e)
				}
				if w := f.Expert(e).Width; w != o.Width {
					t.Fatalf("%s: expert %d has %d units, want %d", name, e, w, o.Width)
				}
			}
			with := o
			with.Pool = one
			again := compressMixture(t, name, m, with)
			for g, b := range f.Blocks {
				if !slices.Equal(again.Blocks[g].Up, b.Up) || !slices.Equal(again.Blocks[g].Down, b.Down) {
					t.Fatalf("%s: another result with one worker", name)
				}
			}
		}
	})
}

// The assignment beside all permutations.
func TestAssignmentIsOptimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "n")
		gain := make([]float32, n*n)
		for i := range gain {
			gain[i] = float32(rapid.IntRange(-4, 4).Draw(t, "gain")) // small whole numbers: many ties
		}
		sum := func(order []int) (s float64) {
			for i, j := range order {
				s += float64(gain[i*n+j])
			}
			return s
		}
		best := math.Inf(-1)
		permutations(seq(n), 0, func(order []int) { best = max(best, sum(order)) })
		got := assignment(gain, n)
		if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, seq(n)) {
			t.Fatalf("%v is no permutation", got)
		}
		if s := sum(got); s != best {
			t.Fatalf("gain %g, the best is %g", s, best)
		}
	})
}

func permutations(order []int, from int, f func([]int)) {
	if from == len(order) {
		f(order)
		return
	}
	for i := from; i < len(order); i++ {
		order[from], order[i] = order[i], order[from]
		permutations(order, from+1, f)
		order[from], order[i] = order[i], order[from]
	}
}

func TestMixtureRefusals(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name string
		with func(m *Mixture, o *Options)
		only string // method, "" for all
		want string
	}{
		{"no experts", func(m *Mixture, o *Options) { m.Experts = nil }, "", "at least one expert"},
		{"no pool", func(m *Mixture, o *Options) { o.Pool = nil }, "", "Pool is missing"},
		{"another width", func(m *Mixture, o *Options) { m.Experts[2] = randomMLP(r, 4, 5, false, false) }, "", "expert 2: expected the shape of expert 0 (6 units of 4 inputs"},
		{"a gate", func(m *Mixture, o *Options) { m.Experts[1] = randomMLP(r, 4, 6, true, false) }, "", "expert 1: expected the shape"},
		{"NaN", func(m *Mixture, o *Options) { m.Experts[1].Up[9] = float32(math.NaN()) }, "", "expert 1: fusion: up: hidden unit 2 holds NaN"},
		{"width 0", func(m *Mixture, o *Options) { o.Width = 0 }, "", "width 0: expected 1 to"},
		{"more than all units", func(m *Mixture, o *Options) { o.Width = 19 }, "shared", "width 19: expected 1 to 18"},
		{"refit of shared units", func(m *Mixture, o *Options) { o.Refit = true }, "shared", "refit: expected with a method for single blocks"},
		{"refit of merged experts", func(m *Mixture, o *Options) { o.Refit = true }, "mc-smoe", "refit: expected with a method for single blocks"},
		{"no experts kept", func(m *Mixture, o *Options) { o.Experts = 0 }, "mc-smoe", "expected 1 to 3"},
		{"more experts", func(m *Mixture, o *Options) { o.Experts = 4 }, "hc-smoe", "expected 1 to 3"},
		{"no inputs", func(m *Mixture, o *Options) { o.Inputs = nil }, "mc-smoe", "needs inputs"},
		{"weighted without inputs", func(m *Mixture, o *Options) { o.Weighted, o.Inputs = true, nil }, "shared", "needs inputs"},
		{"short router", func(m *Mixture, o *Options) { m.Router = m.Router[1:] }, "hc-smoe", "the router: expected 3×4 values, found 11"},
		{"short router bias", func(m *Mixture, o *Options) { m.RouterBias = []float32{1} }, "mc-smoe", "the router's bias: expected 3 values, found 1"},
		{"inputs that are not routed", func(m *Mixture, o *Options) { o.Inputs = matrix{4, tokens(4, 9, 1)} }, "mc-smoe", "what the router does"},
		{"empty inputs", func(m *Mixture, o *Options) { o.Inputs = routedTo(m, 1, nil) }, "mc-smoe", "inputs are empty"},
		{"infinite inputs", func(m *Mixture, o *Options) { o.Inputs = routedTo(m, 1, []float32{1, 2, 3, float32(math.Inf(1))}) }, "mc-smoe", "not finite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range Names(func(m *Method) bool { return m.Mixtures }) {
				if c.only != "" && c.only != name {
					continue
				}
				m := &Mixture{Router: tokens(4, 3, 1)}
				for range 3 {
					m.Experts = append(m.Experts, randomMLP(r, 4, 6, false, false))
				}
				o := Options{Width: 3, Pool: testPool, Inputs: routedTo(m, 1, tokens(4, 9, 1))}
				method, _ := Lookup(name)
				if method.Merges {
					o.Experts = 2
				}
				c.with(m, &o)
				if _, err := method.CompressMixture(t.Context(), m, o); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: error %v, want one with %q", name, err, c.want)
				}
			}
		})
	}
}
