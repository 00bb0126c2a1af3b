package kernel_test

import (
	"fmt"

	"mlpfusion/kernel"
)

// A linear layer with an activation, as one product: y = ReLU(x·Wᵀ + b).
func ExamplePool_Gemm() {
	x := []float32{ // two tokens of hidden size 3
		1, 2, 3,
		-1, 0, 1,
	}
	w := []float32{ // two outputs
		1, 0, 1,
		0, 1, -1,
	}
	b := []float32{0.5, -1}
	y := make([]float32, 2*2)

	pool := kernel.NewPool(0)
	defer pool.Close()
	pool.Gemm(kernel.FP32, 2, 2, 3,
		kernel.Mat{Data: x, Stride: 3},
		kernel.Mat{Data: w, Stride: 3, T: true},
		y, 2,
		kernel.Epilogue{Bias: b, Act: kernel.ReLU})
	fmt.Println(y)
	// Output: [4.5 0 0.5 0]
}

// A weight that many products read is packed once.
func ExamplePool_GemmPacked() {
	pool := kernel.NewPool(0)
	defer pool.Close()
	w := pool.PackB(kernel.FP32, 2, 2, kernel.Mat{Data: []float32{1, 2, 3, 4}, Stride: 2})
	y := make([]float32, 2)
	for _, x := range [][]float32{{1, 0}, {1, 1}} {
		pool.GemmPacked(1, kernel.Mat{Data: x, Stride: 2}, w, y, 2, kernel.Epilogue{})
		fmt.Println(y)
	}
	// Output:
	// [1 2]
	// [4 6]
}
