package nn

import (
	"math/rand/v2"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// TestTwoReaders compares the gradient of what two operations read, so that the
// second adds to the first one's, with differences of the sum that they go into. The
// tensors are longer than one iteration of the loops over them.
func TestTwoReaders(t *testing.T) {
	const cols = 70
	rows := chunk/cols + 3
	routed := func(tape *Tape, x *Tensor) []*Tensor {
		logits := tape.New(rows, 3)
		logits.noGrad = true
		rng := rand.New(rand.NewPCG(3, 4))
		copy(logits.Data, normal(rng, len(logits.Data), 1))
		r := tape.Route(logits, []int32{0, int32(rows / 2), int32(rows)}, &Router{TopK: 1, Capacity: rows / 5})
		return append(tape.Dispatch(x, r), tape.Combine(tape.Dispatch(x, r), r, cols))
	}
	for name, read := range map[string]func(tape *Tape, x *Tensor) []*Tensor{
		"rows": func(tape *Tape, x *Tensor) []*Tensor {
			return []*Tensor{tape.Rows(x, []int32{1, 5, 5, int32(rows - 1)}), tape.Rows(x, []int32{0, 5, int32(rows - 1)})}
		},
		"add": func(tape *Tape, x *Tensor) []*Tensor {
			return []*Tensor{tape.Add(x, x, 0), tape.Add(x, x, 0.3)}
		},
		"dropout": func(tape *Tape, x *Tensor) []*Tensor {
			return []*Tensor{tape.Dropout(x, 0.2), tape.Dropout(x, 0.5)}
		},
		"jitter": func(tape *Tape, x *Tensor) []*Tensor {
			return []*Tensor{tape.Jitter(x, 0.2), tape.Jitter(x, 0.5)}
		},
		"mixture": routed,
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			data := normal(rng, rows*cols, 1)
			var weights [][]float32
			// run returns the sum, and with weights its gradient where x is data.
			run := func(x0 []float32) (sum float64, dx []float32) {
				pool := kernel.NewPool(2)
				defer pool.Close()
				tape := NewTape(pool)
				tape.Train, tape.Seed = true, 7
				x := tape.New(rows, cols)
				copy(x.Data, x0)
				ys := read(tape, x)
				for i, y := range ys {
					if i == len(weights) {
						weights = append(weights, normal(rng, len(y.Data), 1))
					}
					for j, v := range y.Data {
						sum += float64(v) * float64(weights[i][j])
					}
					y.Grad = append([]float32(nil), weights[i]...)
				}
				tape.Backward()
				return sum, x.Grad
			}
			_, dx := run(data)
			// Every operation is linear in x: a step of any size gives the derivative.
			for range 5 {
				way := normal(rng, len(data), 1)
				there, back := make([]float32, len(data)), make([]float32, len(data))
				var want float64
				for i, v := range data {
					there[i], back[i] = v+way[i], v-way[i]
					want += float64(dx[i]) * float64(there[i]-back[i])
				}
				up, _ := run(there)
				down, _ := run(back)
				golden.NearValue(t, "the change along a direction", up-down, want, 1e-3*golden.Norm(dx))
			}
		})
	}
}

// TestSquaredDistance checks the value, and the gradient alone and beside another, with
// weights of the rows and without.
func TestSquaredDistance(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	const cols = 50
	rows := chunk/cols + 3
	for _, c := range []struct{ had, weighs bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		tape := NewTape(pool)
		tape.Train = true
		x, target := tape.New(rows, cols), tape.New(rows, cols)
		var weights []float32
		if c.weighs {
			for range rows {
				weights = append(weights, rng.Float32())
			}
		}
		copy(x.Data, normal(rng, rows*cols, 1))
		copy(target.Data, normal(rng, rows*cols, 1))
		const weight = 0.7
		var loss float64
		want := make([]float32, rows*cols)
		if c.had {
			x.Grad = normal(rng, rows*cols, 0.01)
			copy(want, x.Grad)
		}
		for i, v := range x.Data {
			d, w := float64(v-target.Data[i]), weight
			if c.weighs {
				w *= float64(weights[i/cols])
			}
			loss += w * d * d / float64(rows)
			want[i] += float32(2 * w * d / float64(rows))
		}
		golden.NearValue(t, "loss", tape.SquaredDistance(x, target, weight, weights), loss, 1e-9*loss)
		golden.NearNorm(t, "gradient", x.Grad, want, 1e-6)
	}
}

// TestJitter checks that the noise spans its interval and repeats nowhere: not in the
// next chunk, and not in the next operation.
func TestJitter(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	tape := NewTape(pool)
	tape.Train, tape.Seed = true, 7
	x := tape.New(3, chunk)
	for i := range x.Data {
		x.Data[i] = 1
	}
	seen := map[float32]int{}
	lowest, highest, sum := float32(2), float32(0), 0.0
	for range 2 {
		for _, v := range tape.Jitter(x, 0.5).Data {
			seen[v]++
			lowest, highest, sum = min(lowest, v), max(highest, v), sum+float64(v)
		}
	}
	n := 2 * len(x.Data)
	golden.NearValue(t, "mean", sum/float64(n), 1, 5*0.5/1.732/317) // five standard errors, √n > 313
	if !(0.5 <= lowest && lowest < 0.501 && 1.499 < highest && highest <= 1.5) {
		t.Errorf("noise from %g to %g, want the interval from 0.5 to 1.5", lowest, highest)
	}
	// Of n draws among 2^23 numbers at least, some n²/2^24 meet by chance.
	if many := n - len(seen); many > 4*n*n/(1<<24) {
		t.Errorf("%d of %d factors were there before", many, n)
	}
}
