package kernel

import (
	"fmt"
	"testing"
)

// BenchmarkVector times each function, in the form in use (see MLPFUSION_ISA), on slices that fit in the
// first-level cache, and on long ones; ns/elem is per element, and MB/s counts
// what is read and written.
func BenchmarkVector(b *testing.B) {
	for _, n := range []int{384, 1 << 22} {
		v := make([][]float32, 6)
		for i := range v {
			v[i] = make([]float32, n)
			for j := range v[i] {
				v[i][j] = float32(j%97)/16 - 3
			}
		}
		clear(v[3])
		o := AdamW{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, Correction1: 1, Correction2: 1, GradScale: 1}
		for _, c := range []struct {
			name  string
			moved int // bytes per element
			run   func()
		}{
			{"Dot", 8, func() { Dot(v[0], v[1]) }},
			{"Axpy", 12, func() { Axpy(1e-9, v[0], v[1]) }},
			{"Mul", 12, func() { Mul(v[3], v[0]) }},
			{"AddTo", 12, func() { AddTo(v[2], v[0], v[1]) }},
			{"AddColumns", 5, func() { AddColumns(v[3][:n/4], v[0], n/4, 4) }},
			{"SumSquares", 4, func() { SumSquares(v[0]) }},
			{"SumSquaresColumns", 8, func() { SumSquaresColumns(v[0], v[1]) }},
			{"Softmax", 8, func() { Softmax(v[4], len(v[4])) }},
			{"Softmax of 24", 8, func() { Softmax(v[4][:n/24*24], 24) }},
			{"SoftmaxGrad", 12, func() { SoftmaxGrad(v[3], v[0], 0.1) }},
			{"LayerNorm", 20, func() { LayerNorm(v[2], v[5], v[0], v[1], v[0], 1e-5) }},
			{"LayerNormGrad", 36, func() { LayerNormGrad(v[2], v[5], v[3], v[0], v[1], v[0], 1e-9) }},
			{"AdamW", 28, func() { o.Step(v[2], v[0], v[5], v[3], 1) }},
			{"AdamWColumns", 32, func() { o.StepColumns(v[2], v[0], v[5], v[3], v[1]) }},
			{"GELU", 8, func() { Activate(GELU, v[4], nil, nil) }},
			{"GELUDeriv", 12, func() { Activate(GELU, v[4], v[2], nil) }},
			{"GELUTanhDeriv", 12, func() { Activate(GELUTanh, v[4], v[2], nil) }},
			{"ReLUDeriv", 12, func() { Activate(ReLU, v[4], v[2], nil) }},
			{"SiLUDeriv", 12, func() { Activate(SiLU, v[4], v[2], nil) }},
			{"TanhDeriv", 12, func() { Activate(Tanh, v[4], v[2], nil) }},
			{"DropoutApply", 8, func() { DropoutApply(v[2], v[0], 1, 2, 0.1) }},
		} {
			b.Run(fmt.Sprintf("%s/n=%d", c.name, n), func(b *testing.B) {
				b.SetBytes(int64(n * c.moved))
				for b.Loop() {
					c.run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/elem")
			})
		}
	}
}
