package fusion

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// What a method's registration says of it is what it does.
func TestTraits(t *testing.T) {
	ranks := map[int]string{}
	for _, method := range Methods() {
		if other, taken := ranks[method.Rank]; taken || method.About == "" {
			t.Errorf("%s has the rank of %q and the description %q", method.Name, other, method.About)
		}
		ranks[method.Rank] = method.Name
		blind := method
		if method.Blind != "" {
			var err error
			if blind, err = Lookup(method.Blind); err != nil {
				t.Error(err)
			}
		}
		if single := !blind.Mixtures; single && blind.UsesTexts(Options{}) || blind.Mixtures != method.Mixtures {
			t.Errorf("%s without texts is %s, which needs them or is of another kind", method.Name, blind.Name)
		}
		if method.Mixtures {
			continue // TestMixtureRefusals, TestSharedCounts and TestMerge have these
		}
		for _, gated := range []bool{false, true} {
			m := randomMLP(rand.New(rand.NewPCG(7, 1)), 6, 24, gated, true)
			o := Options{Width: 8, Pool: testPool}
			if _, err := method.Compress(t.Context(), m, o); (err == errNoInputs) != method.UsesTexts(o) {
				t.Errorf("%s without inputs: %v, and it reads texts: %v", method.Name, err, method.UsesTexts(o))
			}
			o.Inputs = matrix{m.Hidden, tokens(m.Hidden, 40, 1)}
			b := mustCompress(t, method.Name, m, o)
			if (b.Scale != nil) != method.KeepsP || (b.Sizes != nil) != method.Clusters || (b.Factors == nil && !b.Masked) != method.Units {
				t.Errorf("%s: P %v, clusters %v, factors %v, masked %v: not what its traits say", method.Name, b.Scale, b.Sizes, b.Factors != nil, b.Masked)
			}
			for seed := range uint64(5) {
				o.Seed = seed
				other := mustCompress(t, method.Name, m, o)
				if !method.UsesSeed(o) && !slices.Equal(other.Up, b.Up) {
					t.Errorf("%s: seed %d gives another block", method.Name, seed)
				}
			}
		}
	}
}

// An option that would change nothing is refused, by the method and before it runs.
func TestCheck(t *testing.T) {
	m := randomMLP(rand.New(rand.NewPCG(7, 1)), 6, 24, false, true)
	for _, c := range []struct {
		method string
		o      Options
		want   string // "" when allowed
	}{
		{"fusion", Options{Clustering: "kmeans", Restarts: 2}, ""},
		{"fusion", Options{Effort: 2, Balance: true}, ""},
		{"calibrated", Options{Ridge: 1, Balance: true}, ""},
		{"prune", Options{Refit: true, Ridge: 1, Fit: 1}, ""},
		{"wanda", Options{Fit: 1}, ""},
		{"prune", Options{Clustering: "ward"}, "clustering: expected with a method that clusters: fusion, calibrated, cluster, shared, mc-smoe, hc-smoe, reap, dern only"},
		{"fusion", Options{Restarts: 2}, "restarts: expected with the clustering kmeans only"},
		{"cluster", Options{Clustering: "ward", Effort: 2}, "effort: expected with the clustering best only"},
		{"flap", Options{Weighted: true}, "weighted: expected with a method that clusters units: fusion, calibrated, cluster, shared only"},
		{"svd", Options{Select: true}, "select: expected with a method that clusters a block's units: fusion, calibrated, cluster only"},
		{"fusion", Options{Ridge: 1}, "ridge: expected with refit or a method that refits: calibrated only"},
		{"svd", Options{Fit: 1}, "fit: expected with a method that leaves units: none, fusion, calibrated, cluster, sketch, mmd, prune, wanda, flap only"},
		{"cluster", Options{Balance: true}, "balance: expected with a method that keeps P: fusion, calibrated only"},
		{"none", Options{Experts: 2}, "experts: expected with a method that merges experts: mc-smoe, hc-smoe, reap, dern only"},
		{"shared", Options{Refit: true}, "refit: expected with a method for single blocks: none, fusion, calibrated, cluster, sketch, svd, mmd, prune, magnitude, wanda, flap only"},
	} {
		method, err := Lookup(c.method)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := method.Check(c.o); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s with %+v: %q, want %q", c.method, c.o, got, c.want)
		}
		c.o.Width, c.o.Pool, c.o.Inputs = 8, testPool, matrix{m.Hidden, tokens(m.Hidden, 40, 1)}
		if _, err := method.Compress(t.Context(), m, c.o); (err == nil) != (c.want == "") {
			t.Errorf("%s compressed with %+v: %v", c.method, c.o, err)
		}
	}
}
