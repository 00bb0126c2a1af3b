package fusion

import (
	"math"
	"math/rand/v2"
	"testing"

	"mlpfusion/internal/golden"

	"pgregory.net/rapid"
)

// Half a step, and the rounding of the two float32 operations on the way back.
func TestInt8Bound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(0, 5).Draw(t, "rows"), rapid.IntRange(0, 9).Draw(t, "cols")
		w := rapid.SliceOfN(rapid.Float32Range(-1e30, 1e30), rows*cols, rows*cols).Draw(t, "w")
		if rows > 1 {
			clear(w[:cols])
		}
		q, scale := QuantizeInt8(w, rows, cols)
		back := DequantizeInt8(q, scale, rows, cols)
		for i, v := range w {
			step := float64(scale[i/cols])
			if d := math.Abs(float64(back[i]) - float64(v)); !(d <= step/2+1e-6*math.Abs(float64(v))+63.5*math.SmallestNonzeroFloat32) {
				t.Fatalf("%g comes back as %g, a step is %g", v, back[i], step)
			}
			if v == 0 && back[i] != 0 {
				t.Fatalf("0 comes back as %g", back[i])
			}
		}
		again, scales := QuantizeInt8(back, rows, cols)
		for i := range again {
			if again[i] != q[i] && !(scale[i/cols] <= 1e-30) {
				t.Fatalf("stored again, %d becomes %d (scale %g, %g)", q[i], again[i], scale[i/cols], scales[i/cols])
			}
		}
	})
}

// The rounding of a block: 254 steps a row leave well under a hundredth of the
// output in every form.
func TestInt8Block(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, gated := range []bool{false, true} {
		m := randomMLP(r, 24, 96, gated, true)
		x := tokens(m.Hidden, 50, 1)
		for _, name := range []string{"none", "fusion", "svd", "magnitude"} {
			b := mustCompress(t, name, m, Options{Width: 24})
			want := output(b, m.Hidden, x)
			rounded := b.Int8()
			golden.NearNorm(t, name, output(rounded, m.Hidden, x), want, 0.02)
			golden.NearNorm(t, name+" itself", output(b, m.Hidden, x), want, 0)
			if b.Params() < rounded.Params() {
				t.Errorf("%s: rounding brought parameters back", name)
			}
		}
	}
}
