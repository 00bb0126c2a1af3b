package fusion

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// Method turns an MLP, or the experts of a mixture, into something smaller. Each
// stands in a file of its own, which registers it with what the rest of the program
// has to know of it: nothing outside that file asks for it by name.
type Method struct {
	Name  string
	About string // what becomes of the units, in one line
	Rank  int    // place in lists and tables, from 0

	Clusters bool // the units it leaves are clusters
	KeepsP   bool // P, the cluster sizes, stays in the block
	Refits   bool // it always refits
	Units    bool // what it leaves are units of a dense block
	Mixtures bool // it compresses all experts of a mixture together, see CompressMixture
	Merges   bool // and leaves fewer of them
	Drops    bool // of which the router keeps the rows of those alone, see FusedMixture.Of
	// Blind is the method for a block that no text comes to, as an expert may be;
	// "" is this one.
	Blind string

	texts  bool // it needs Inputs
	seeded bool // it draws random numbers

	implied func(m *MLP, o *Options) // sets the options that the method stands for; may be nil
	block   func(ctx context.Context, m *MLP, o Options) (*Block, error)
	mixture func(ctx context.Context, m *Mixture, o Options) (*FusedMixture, error) // of Mixtures
}

// Options say how to compress. Width and Pool are required.
type Options struct {
	Width int // c, 1 … the MLP's width
	Seed  uint64
	Pool  *kernel.Pool

	// Spend lets Compress drop the MLP's weights on the way, which saves their
	// memory where it can; the MLP is of no use afterwards.
	Spend bool

	Clustering kmeans.Algorithm // "" is kmeans.AlgorithmBest
	Restarts   int              // of the clustering; 0 is its default
	Effort     int              // of the clustering; 0 is its default

	// Inputs are the calibration data; the options below need them.
	Inputs   Inputs
	Weighted bool    // cluster by what units do on Inputs (docs/calibrated.md)
	Select   bool    // make clusters around the units that matter most on Inputs, a greedy choice
	Refit    bool    // fit the last linear layer to the original's outputs on Inputs
	Ridge    float64 // of Refit, relative to the features' mean variance; 0 is 1e-4
	Fit      int     // steps of descent on all weights of a dense block, after Refit

	// Balance makes P each unit's share of the output, in place of cluster sizes.
	Balance bool

	// Experts is the number of experts that merging leaves, 1 … as many as there are.
	Experts int

	taught *teacher // shared by the steps of one Compress
}

var methods []*Method // by rank

func register(m Method) {
	methods = append(methods, &m)
	slices.SortFunc(methods, func(a, b *Method) int { return cmp.Or(a.Rank-b.Rank, strings.Compare(a.Name, b.Name)) })
}

// Methods lists the methods by rank.
func Methods() []*Method { return slices.Clone(methods) }

// Names lists the names of the methods that have a trait, all when it is nil, by
// rank.
func Names(trait func(m *Method) bool) []string {
	var names []string
	for _, m := range methods {
		if trait == nil || trait(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

// Lookup returns the method of that name, or an error that lists the names.
func Lookup(name string) (*Method, error) {
	for _, m := range methods {
		if m.Name == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("unknown fusion method %q: expected one of %s", name, strings.Join(Names(nil), ", "))
}

// UsesTexts tells whether the method with these options looks at a block's inputs.
func (w *Method) UsesTexts(o Options) bool {
	return w.texts || o.Weighted || o.Select || o.Refit || o.Fit > 0
}

// UsesSeed tells whether the result depends on the seed.
func (w *Method) UsesSeed(o Options) bool { return w.seeded && !o.Select }

// Check names the first option that would change nothing, and what it goes with.
func (w *Method) Check(o Options) error {
	with := func(what string, trait func(m *Method) bool) string {
		return what + ": " + strings.Join(Names(trait), ", ")
	}
	clusters := func(m *Method) bool { return m.Clusters }
	single := func(m *Method) bool { return !m.Mixtures }
	for _, rule := range []struct {
		option       string
		given, meant bool
		with         string
	}{
		{"clustering", o.Clustering != "", w.Clusters, with("a method that clusters", clusters)},
		{"restarts", o.Restarts > 0, w.Clusters && o.Clustering == kmeans.AlgorithmKMeans, "the clustering kmeans"},
		{"effort", o.Effort > 0, w.Clusters && (o.Clustering == "" || o.Clustering == kmeans.AlgorithmBest), "the clustering best"},
		{"weighted", o.Weighted, w.Clusters && !w.Merges, with("a method that clusters units", func(m *Method) bool { return m.Clusters && !m.Merges })},
		{"select", o.Select, w.Clusters && !w.Mixtures, with("a method that clusters a block's units", func(m *Method) bool { return m.Clusters && !m.Mixtures })},
		{"refit", o.Refit, !w.Mixtures, with("a method for single blocks", single)},
		{"ridge", o.Ridge != 0, o.Refit || w.Refits, with("refit or a method that refits", func(m *Method) bool { return m.Refits })},
		{"fit", o.Fit > 0, w.Units, with("a method that leaves units", func(m *Method) bool { return m.Units })},
		{"balance", o.Balance, w.KeepsP && !w.Mixtures, with("a method that keeps P", func(m *Method) bool { return m.KeepsP && !m.Mixtures })},
		{"experts", o.Experts != 0, w.Merges, with("a method that merges experts", func(m *Method) bool { return m.Merges })},
	} {
		if rule.given && !rule.meant {
			return fmt.Errorf("%s: expected with %s only", rule.option, rule.with)
		}
	}
	return nil
}

var errNoInputs = errors.New("fusion: calibration needs inputs")

// ready reports options that the method cannot work with.
func (w *Method) ready(o Options) error {
	if o.Pool == nil {
		return errors.New("fusion: Options.Pool is missing")
	}
	if err := w.Check(o); err != nil {
		return fmt.Errorf("fusion: %s: %w", w.Name, err)
	}
	if w.UsesTexts(o) && o.Inputs == nil {
		return errNoInputs
	}
	return nil
}

// Compress returns a block of o.Width units, or of the same cost where the
// method has another form, and leaves m as it is unless told to spend it. It
// reports a width out of 1 … m.Width, options that mean nothing to the method,
// tensors of the wrong length, weights that are not finite numbers (naming the
// unit), missing calibration inputs, and ctx's end.
func (w *Method) Compress(ctx context.Context, m *MLP, o Options) (*Block, error) {
	if w.block == nil {
		return nil, fmt.Errorf("fusion: %s compresses mixtures of experts, not single blocks", w.Name)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if o.Width < 1 || o.Width > m.Width {
		return nil, fmt.Errorf("fusion: width %d: expected 1 to %d, the block's own width", o.Width, m.Width)
	}
	if err := w.ready(o); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.implied != nil {
		w.implied(m, &o)
	}
	if o.Inputs != nil {
		o.taught = o.teacher(m)
	}
	b, err := w.block(ctx, m, o)
	if err == nil && o.Refit {
		err = refit(ctx, m, b, o)
	}
	if err == nil && o.Fit > 0 {
		err = fit(ctx, m, b, o)
	}
	if err == nil && o.Balance {
		b.balance(m.Width)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// CompressMixture compresses all experts of a mixture together and leaves m as it
// is. It reports what Compress reports, experts of different shapes, and a number
// of experts out of 1 … len(m.Experts).
func (w *Method) CompressMixture(ctx context.Context, m *Mixture, o Options) (*FusedMixture, error) {
	if w.mixture == nil {
		return nil, fmt.Errorf("fusion: %s compresses single blocks, not mixtures of experts", w.Name)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	most, what := m.Experts[0].Width, "the experts' own width"
	if !w.Merges {
		most, what = most*len(m.Experts), "the units of all experts"
	}
	if o.Width < 1 || o.Width > most {
		return nil, fmt.Errorf("fusion: width %d: expected 1 to %d, %s", o.Width, most, what)
	}
	if n := len(m.Experts); w.Merges && (o.Experts < 1 || o.Experts > n) {
		return nil, fmt.Errorf("fusion: experts to keep: expected 1 to %d, the layer's own number, found %d", n, o.Experts)
	}
	if err := w.ready(o); err != nil {
		return nil, err
	}
	return w.mixture(ctx, m, o)
}
