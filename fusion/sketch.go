package fusion

import (
	"context"
	"math"
	"math/rand/v2"

	"mlpfusion/kernel"
)

// sketch mixes all hidden units into c at random: with a Gaussian S (c×p_I,
// entries N(0,1)/sqrt(c)), W1~ = S·W1, b1~ = S·b1, W2~ = W2·Sᵀ. On the sub-MLP
// matrix this is one product, X~ = S·X.
func init() {
	register(Method{Name: "sketch", Rank: 4, About: "random mixtures of all units",
		Units: true, seeded: true, block: mixed})
}

func mixed(_ context.Context, m *MLP, o Options) (*Block, error) {
	return sketched(m, gaussian(o.Width, m.Width, o.Seed), o.Width, o.Pool), nil
}

func sketched(m *MLP, s []float32, c int, pool *kernel.Pool) *Block {
	x, d := m.SubMLPs()
	y := make([]float32, c*d)
	pool.Gemm(kernel.FP32, c, d, m.Width, kernel.Mat{Data: s, Stride: m.Width}, kernel.Mat{Data: x, Stride: d}, y, d, kernel.Epilogue{})
	return m.withUnits(y, c)
}

func gaussian(c, n int, seed uint64) []float32 {
	r := random(seed)
	s := make([]float32, c*n)
	for i := range s {
		s[i] = float32(r.NormFloat64() / math.Sqrt(float64(c)))
	}
	return s
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6d6c7066)) }
