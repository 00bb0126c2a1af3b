package fusion

import "context"

func weigh(ctx context.Context, m *MLP, x []float32, o Options) error { return nil }
