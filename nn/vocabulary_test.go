package nn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
)

// holdFew makes what is held at a time small, so that little does not fit into it.
func holdFew(t *testing.T) {
	held := heldLogits
	heldLogits = 1 << 20
	t.Cleanup(func() { heldLogits = held })
}

// TestVocabularyLoss compares loss and gradients with the definition in float64,
// for batches that fit into one go and such that do not.
func TestVocabularyLoss(t *testing.T) {
	holdFew(t)
	for _, c := range []struct {
		kind        Loss
		rows, words int
		scale       float32
	}{{CrossEntropy, 7, 1000, 1}, {CrossEntropy, 130, heldLogits / 60, 0.5}, {KernelFunction, 130, heldLogits / 60, 1}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			const hidden = 5
			rng := rand.New(rand.NewPCG(1, 2))
			random := func(n int, size float64) []float32 {
				v := make([]float32, n)
				for i := range v {
					v[i] = float32(size * rng.NormFloat64())
				}
				return v
			}
			x0, w0 := random(c.rows*hidden, 1), random(c.words*hidden, 2)
			targets := make([]int32, c.rows)
			for i := range targets {
				targets[i] = int32(rng.IntN(c.words))
			}
			var first []float32
			for _, workers := range []int{1, 2} {
				pool := kernel.NewPool(workers)
				defer pool.Close()
				tape := NewTape(pool)
				tape.Train = true
				tape.Reset(0)
				x := tape.New(c.rows, hidden)
				copy(x.Data, x0)
				w := &Weight{Data: w0, Grad: random(len(w0), 1), Rows: c.words, Cols: hidden} // a stale gradient
				loss := tape.VocabularyLoss(c.kind, x, w, c.scale, 0, targets)
				if first == nil {
					checkVocabularyLoss(t, c.kind, float64(c.scale), x, w, targets, loss)
					first = append(slices.Clone(x.Grad), w.Grad...)
				} else if !slices.Equal(first, append(slices.Clone(x.Grad), w.Grad...)) {
					t.Error("two workers' gradients differ from one's")
				}
			}
		})
	}
}

func checkVocabularyLoss(t *testing.T, kind Loss, scale float64, x *Tensor, w *Weight, targets []int32, loss float64) {
	t.Helper()
	h := w.Cols
	var want float64
	dx, dw := make([]float64, len(x.Data)), make([]float64, len(w.Data))
	factor := -scale
	if kind == CrossEntropy {
		factor = scale / float64(x.Rows)
	}
	logits := make([]float64, w.Rows)
	for r := range x.Rows {
		var z float64
		for v := range logits {
			var s float64
			for j := range h {
				s += float64(x.Data[r*h+j]) * float64(w.Data[v*h+j])
			}
			logits[v] = scale * s
			z += math.Exp(logits[v])
		}
		if kind == CrossEntropy {
			want += (math.Log(z) - logits[targets[r]]) / float64(x.Rows)
		} else {
			want -= math.Log(z) - logits[targets[r]]
		}
		for v := range logits {
			g := math.Exp(logits[v]) / z
			if v == int(targets[r]) {
				g--
			}
			for j := range h {
				dx[r*h+j] += factor * g * float64(w.Data[v*h+j])
				dw[v*h+j] += factor * g * float64(x.Data[r*h+j])
			}
		}
	}
	golden.NearValue(t, "loss", loss, want, 1e-5*math.Abs(want))
	for _, g := range []struct {
		name string
		got  []float32
		want []float64
	}{{"x", x.Grad, dx}, {"w", w.Grad, dw}} {
		golden.NearNorm(t, "gradient of "+g.name, g.got, g.want, 1e-4)
	}
}

// TestVocabularyGolden compares the loss of a head, and its logits, with PyTorch's,
// capped and not (scripts/goldens/ops.py).
func TestVocabularyGolden(t *testing.T) {
	g, cases := openOps[struct {
		Words, Hidden  int
		Scale, Softcap float32
		Loss           float64
	}](t, "vocabulary")
	pool := kernel.NewPool(2)
	defer pool.Close()
	for i, c := range cases {
		at := func(name string) []float32 { return g.Floats(fmt.Sprint(i, ".", name)) }
		tape := NewTape(pool)
		tape.Train = true
		w := &Weight{Data: at("w"), Rows: c.Words, Cols: c.Hidden}
		targets := g.Ints(fmt.Sprint(i, ".targets"))
		input := func() *Tensor {
			x := tape.New(len(targets), c.Hidden)
			copy(x.Data, at("x"))
			return x
		}
		x := input()
		loss := tape.VocabularyLoss(CrossEntropy, x, w, c.Scale, c.Softcap, targets)
		golden.NearValue(t, fmt.Sprint(c, " loss"), loss, c.Loss, 1e-6)
		golden.Near(t, fmt.Sprint(c, " gradient of x"), x.Grad, at("dx"), 1e-6)
		golden.Near(t, fmt.Sprint(c, " gradient of the words"), w.Grad, at("dw"), 1e-6)

		// The logits themselves, and their gradient by way of Softcap's derivative.
		w.ZeroGrad()
		x = input()
		logits := tape.Linear(x, &Linear{W: w}, kernel.Identity, nil)
		tape.Scale(logits, c.Scale)
		if c.Softcap > 0 {
			tape.Softcap(logits, c.Softcap)
		}
		golden.Near(t, fmt.Sprint(c, " logits"), logits.Data, at("logits"), 5e-6)
		labels := make([]float32, len(targets))
		for j, id := range targets {
			labels[j] = float32(id)
		}
		tape.Loss(CrossEntropy, logits, labels)
		tape.Backward()
		golden.Near(t, fmt.Sprint(c, " gradient of x by the logits"), x.Grad, at("dx"), 1e-6)
		golden.Near(t, fmt.Sprint(c, " gradient of the words by the logits"), w.Grad, at("dw"), 1e-6)
	}
}

// TestDistillVocabulary compares loss and gradients with Distill on the logits written
// out, whose own goldens are PyTorch's: with and without caps, in one go and in several.
func TestDistillVocabulary(t *testing.T) {
	holdFew(t)
	for _, c := range []struct {
		rows, words   int
		cap, theirCap float32
	}{{7, 300, 0, 0}, {7, 300, 3, 2}, {50, heldLogits / 40, 0, 0}} {
		const hidden, theirHidden, scale, theirScale, weight, temperature = 5, 3, 0.7, 1.3, 0.4, 2.5
		rng := rand.New(rand.NewPCG(3, 4))
		pool := kernel.NewPool(2)
		defer pool.Close()
		tape, theirTape := NewTape(pool), NewTape(pool)
		tape.Train = true
		random := func(t *Tape, rows, cols int) (*Tensor, *Weight) {
			x := t.New(rows, cols)
			w := &Weight{Data: make([]float32, c.words*cols), Rows: c.words, Cols: cols}
			for _, v := range [][]float32{x.Data, w.Data} {
				for i := range v {
					v[i] = float32(rng.NormFloat64())
				}
			}
			return x, w
		}
		x, w := random(tape, c.rows, hidden)
		theirs, head := random(theirTape, c.rows, theirHidden)
		targets, labels := make([]int32, c.rows), make([]float32, c.rows)
		for i := range targets {
			targets[i] = int32(rng.IntN(c.words))
			labels[i] = float32(targets[i])
		}
		// Distill on all logits at once.
		written := func(t *Tape, x *Tensor, w *Weight, scale, cap float32) (logits *Tensor, derivs []float32) {
			logits = t.New(x.Rows, w.Rows)
			for r := range x.Rows {
				for k := range w.Rows {
					logits.Data[r*w.Rows+k] = scale * kernel.Dot(x.Data[r*w.Cols:(r+1)*w.Cols], w.Data[k*w.Cols:(k+1)*w.Cols])
				}
			}
			derivs = slices.Repeat([]float32{1}, len(logits.Data))
			if cap > 0 {
				softcap(logits.Data, derivs, cap)
			}
			return logits, derivs
		}
		logits, derivs := written(tape, x, w, scale, c.cap)
		their, _ := written(theirTape, theirs, head, theirScale, c.theirCap)
		want := tape.Distill(CrossEntropy, logits, their, labels, weight, temperature)
		dx, dw := make([]float32, len(x.Data)), make([]float32, len(w.Data))
		for r := range c.rows {
			for k := range c.words {
				g := scale * derivs[r*c.words+k] * logits.Grad[r*c.words+k]
				kernel.Axpy(g, w.Data[k*hidden:(k+1)*hidden], dx[r*hidden:(r+1)*hidden])
				kernel.Axpy(g, x.Data[r*hidden:(r+1)*hidden], dw[k*hidden:(k+1)*hidden])
			}
		}
		got := tape.DistillVocabulary(x, w, scale, c.cap, targets, &VocabularyTeacher{theirs, head, theirScale, c.theirCap, weight, temperature})
		golden.NearValue(t, "loss", got, want, 1e-5*math.Abs(want))
		golden.NearNorm(t, "states' gradient", x.Grad, dx, 1e-5)
		golden.NearNorm(t, "matrix's gradient", w.Grad, dw, 1e-5)
	}
}
