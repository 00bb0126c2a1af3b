package fusion

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"mlpfusion/kernel"
	"mlpfusion/kmeans"
)

// Method turns an MLP into a smaller block.
type Method interface {
	// Name is the name Lookup knows it by.
	Name() string

	// Compress returns a block of o.Width units, or of the same cost where the
	// method has another form, and leaves m as it is unless told to spend it. It
	// reports a width out of 1 … m.Width, tensors of the wrong length, weights
	// that are not finite numbers (naming the unit), missing calibration inputs,
	// and ctx's end.
	Compress(ctx context.Context, m *MLP, o Options) (*Block, error)
}

// Options say how to compress. Width and Pool are required.
type Options struct {
	Width int // c, 1 … the MLP's width
	Seed  uint64
	Pool  *kernel.Pool

	// Spend lets Compress drop the MLP's weights on the way, which saves their
	// memory where it can; the MLP is of no use afterwards.
	Spend bool

	Clustering kmeans.Algorithm // of fusion and cluster; "" is kmeans.AlgorithmBest
	Restarts   int              // of the clustering; 0 is its default
	Effort     int              // of the clustering; 0 is its default

	// Inputs are the calibration data; the options below need them.
	Inputs   Inputs
	Weighted bool    // cluster by what units do on Inputs, see weigh
	Select   bool    // make clusters around the units that matter most on Inputs, see pick
	Refit    bool    // fit the last linear layer to the original's outputs on Inputs
	Ridge    float64 // of Refit, relative to the features' mean variance; 0 is 1e-4
	Fit      int     // steps of descent on all weights of a dense block, after Refit

	// Balance makes P each unit's share of the output, in place of cluster sizes; of
	// fusion and calibrated.
	Balance bool

	taught *teacher // shared by the steps of one Compress
}

var methods = []compressor{
	fused{}, clustered{}, sketch{}, svd{}, mmd{}, prune{}, magnitude{}, none{}, calibrated{},
}

// Names lists the methods.
func Names() []string { return namesOf(methods) }

func namesOf[M interface{ Name() string }](list []M) []string {
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = m.Name()
	}
	return names
}

// Lookup returns the method of that name, or an error that lists the names.
func Lookup(name string) (Method, error) {
	i := slices.Index(Names(), name)
	if i < 0 {
		return nil, fmt.Errorf("unknown fusion method %q: expected one of %s", name, strings.Join(Names(), ", "))
	}
	return method{methods[i]}, nil
}

var errNoInputs = errors.New("fusion: calibration needs inputs")

// compressor is what one method adds to what method does for all.
type compressor interface {
	Name() string
	compress(ctx context.Context, m *MLP, o Options) (*Block, error)
}

// method checks what goes in and applies the steps that every method shares.
type method struct{ compressor }

func (w method) Compress(ctx context.Context, m *MLP, o Options) (*Block, error) {
	if o.Pool == nil {
		return nil, errors.New("fusion: Options.Pool is missing")
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if o.Width < 1 || o.Width > m.Width {
		return nil, fmt.Errorf("fusion: width %d: expected 1 to %d, the block's own width", o.Width, m.Width)
	}
	if w.Name() == (calibrated{}).Name() {
		o.Select, o.Refit = true, true
		if o.Fit == 0 {
			o.Fit = fitSteps(m.Width, o.Width)
		}
	}
	if (o.Weighted || o.Select || o.Refit || o.Fit > 0) && o.Inputs == nil {
		return nil, errNoInputs
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Inputs != nil {
		o.taught = o.teacher(m)
	}
	b, err := w.compress(ctx, m, o)
	if err == nil && o.Refit {
		err = refit(ctx, m, b, o)
	}
	if err == nil && o.Fit > 0 {
		err = fit(ctx, m, b, o)
	}
	if err == nil && o.Balance {
		err = b.balance(m.Width)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}
