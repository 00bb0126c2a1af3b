package generate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestDraw compares the distribution that draw's definition gives, computed here
// by sorting everything, with where the borders of its choices lie: token i must
// be drawn for the u between the sums of what comes before it and with it.
func TestDraw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logits := rapid.SliceOfN(rapid.Float32Range(-3, 3), 1, 12).Draw(t, "logits")
		o := Options{Sample: true, Temperature: rapid.SampledFrom([]float64{0, 0.5, 1, 2}).Draw(t, "temperature"),
			TopK: rapid.IntRange(0, 5).Draw(t, "top-k"), TopP: rapid.SampledFrom([]float64{0, 0.01, 0.5, 0.9, 1}).Draw(t, "top-p")}
		allowed := distribution(logits, &o)
		const n = 500
		counts := make([]float64, len(logits))
		for i := range n {
			id, _ := o.draw(logits, (float64(i)+0.5)/n, nil)
			counts[id]++
		}
		for id, p := range allowed {
			// Each token has one interval of u, so the count is off by at most one at either end.
			if !(math.Abs(counts[id]-p*n) <= 1.01) {
				t.Fatalf("token %d is drawn with probability %v, want %v", id, counts[id]/n, p)
			}
		}
	})
}

// distribution is transformers' definition: temperature, then top-k, then top-p.
func distribution(logits []float32, o *Options) []float64 {
	temperature := cmp.Or(o.Temperature, 1)
	p := make([]float64, len(logits))
	softmax := func() {
		sum := 0.0
		for i := range p {
			sum += p[i]
		}
		for i := range p {
			p[i] /= sum
		}
	}
	for i, x := range logits {
		p[i] = math.Exp(float64(x) / temperature)
	}
	if o.TopK > 0 && o.TopK < len(p) {
		sorted := slices.Clone(logits)
		slices.Sort(sorted)
		for i, x := range logits {
			if x < sorted[len(sorted)-o.TopK] {
				p[i] = 0
			}
		}
	}
	softmax()
	if o.TopP > 0 && o.TopP < 1 {
		order := make([]int, len(p))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(logits[a], logits[b]), cmp.Compare(b, a)) })
		sum := 0.0
		for _, i := range order[:len(order)-1] {
			if sum += p[i]; sum <= 1-o.TopP {
				p[i] = 0
			} else {
				break
			}
		}
		softmax()
	}
	return p
}

func TestRepeats(t *testing.T) {
	for _, c := range []struct {
		ids  []int32
		n    int
		want []int32
	}{
		{[]int32{1, 2, 3, 1, 2}, 3, []int32{3}},
		{[]int32{1, 2, 3, 1, 2, 4, 1, 2}, 3, []int32{3, 4}},
		{[]int32{1, 2, 1}, 1, []int32{1, 2, 1}},
		{[]int32{5, 5}, 2, []int32{5}},
		{[]int32{1, 2, 3}, 3, nil},
		{[]int32{1, 2}, 3, nil},
		{[]int32{1, 1, 1}, 0, nil},
	} {
		if got := repeats(nil, c.ids, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%v, %d: found %v, want %v", c.ids, c.n, got, c.want)
		}
	}
}

func TestMostProbable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		logits := make([]float32, 1+random.IntN(40))
		for i := range logits {
			logits[i] = float32(random.IntN(10))
		}
		var banned []int32
		for id := range logits {
			if random.IntN(4) == 0 && id > 0 {
				banned = append(banned, int32(id))
			}
		}
		n := 1 + random.IntN(8)
		var want []candidate
		for id, x := range logits {
			if !slices.Contains(banned, int32(id)) {
				want = append(want, candidate{int32(id), x})
			}
		}
		slices.SortStableFunc(want, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
		want = want[:min(n, len(want))]
		if got := mostProbable(nil, logits, n, banned); !slices.Equal(got, want) {
			t.Errorf("of %v without %v: found %v, want %v", logits, banned, got, want)
		}
	}
	if got := mostProbable(nil, []float32{1, 2}, 1, []int32{0, 1}); len(got) != 1 || got[0].id != 0 {
		t.Errorf("with all tokens banned: found %v", got)
	}
}
