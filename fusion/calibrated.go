package fusion

import "context"

// calibrated is fusion for the smallest output error on calibration inputs: the
// units that matter most become the centres of clusters (pick, around), then
// the down projection is refitted (refit) and all weights descend the output
// error for a moment (fit). P is the cluster sizes, as in fusion, so training
// goes on in the same form.
type calibrated struct{}

func (calibrated) Name() string { return "calibrated" }

func (calibrated) compress(ctx context.Context, m *MLP, o Options) (*Block, error) {
	return fused{}.compress(ctx, m, o)
}
