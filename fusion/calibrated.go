package fusion

import "context"

// calibrated is fusion made to mean output error: activation-weighted
// clustering (weigh), then the refit of the down projection.
type calibrated struct{}

func (calibrated) Name() string { return "calibrated" }

func (calibrated) compress(ctx context.Context, m *MLP, o Options) (*Block, error) {
	return fused{}.compress(ctx, m, o)
}
