package fusion_test

import (
	"context"
	"fmt"
	"log"

	"mlpfusion/fusion"
	"mlpfusion/kernel"
)

// A block of four hidden units of which two are alike, as in docs/method.md.
func Example() {
	mlp := &fusion.MLP{
		Hidden: 2, Width: 4, Act: kernel.ReLU,
		Up: []float32{
			1, 0, // unit 0
			0, 1, // unit 1
			1, 0, // unit 2, the same as unit 0
			1, 1, // unit 3
		},
		UpBias: []float32{0, 0, 0, -1},
		Down: []float32{ // a column a unit
			1, 2, 1, 3,
			0, 1, 0, 1,
		},
		DownBias: []float32{0, 0},
	}
	pool := kernel.NewPool(0)
	defer pool.Close()

	method, err := fusion.Lookup("fusion")
	if err != nil {
		log.Fatal(err)
	}
	block, err := method.Compress(context.Background(), mlp, fusion.Options{Width: 3, Pool: pool})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("P:", block.Scale)
	fmt.Println("W1:", block.Up)
	fmt.Println("inertia:", block.Inertia)

	x := []float32{2, 0.5}
	before, after := make([]float32, 2), make([]float32, 2)
	mlp.Forward(pool, x, 1, before)
	block.Forward(pool, x, 1, after)
	fmt.Println("original:", before, "fused:", after)

	block.Fold()
	block.MLP.Forward(pool, x, 1, after)
	fmt.Println("folded W2:", block.Down, "output:", after)
	fmt.Println("parameters:", block.Params(), "FLOPs a token:", block.FLOPs())
	// Output:
	// P: [2 1 1]
	// W1: [1 0 0 1 1 1]
	// inertia: 0
	// original: [9.5 2] fused: [9.5 2]
	// folded W2: [2 2 3 0 1 1] output: [9.5 2]
	// parameters: 17 FLOPs a token: 24
}
