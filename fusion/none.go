package fusion

import (
	"context"
	"slices"
)

// none keeps the block as it is, whatever the width: the upper reference.
func init() {
	register(Method{Name: "none", Rank: 0, About: "the block as it is",
		Units: true, block: unchanged})
}

func unchanged(_ context.Context, m *MLP, _ Options) (*Block, error) {
	return &Block{MLP: m.clone()}, nil
}

func (m *MLP) clone() MLP {
	c := *m
	for _, t := range []*[]float32{&c.Gate, &c.GateBias, &c.Up, &c.UpBias, &c.Down, &c.DownBias} {
		*t = slices.Clone(*t)
	}
	return c
}
