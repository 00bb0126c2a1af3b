package shrink

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSearch draws error curves and losses that grow with the error: the narrowest
// width that loses no more than the limit is found, in few trials, none of them twice.
func TestSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const draws, widths = 2000, 12
	trials := 0
	for range draws {
		errs, losses := make([]float64, widths), make([]float64, widths)
		bend := 0.5 + 2*rng.Float64()
		for i, e := 0, 0.0; i < widths; i++ {
			e += rng.ExpFloat64()
			errs[i], losses[i] = e, e*(1+bend*e/widths)
		}
		within := losses[0] * rng.Float64() * 10
		want := -1
		for i, l := range losses {
			if l <= within {
				want = i
			}
		}
		var seen []int
		got, err := search(errs, 3, within, func(i int) (float64, error) {
			if slices.Contains(seen, i) {
				t.Fatalf("width %d is tried again after %v", i, seen)
			}
			seen = append(seen, i)
			return losses[i], nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) > most || got != want && len(seen) < most || got > want {
			t.Fatalf("found %d after %v, want %d", got, seen, want)
		}
		trials += len(seen)
	}
	if mean := float64(trials) / draws; !(mean <= 3.7) { // halving needs log2(13)
		t.Errorf("%.2f trials on average", mean)
	} else {
		t.Logf("%.2f trials on average", mean)
	}
	broken := errors.New("broken")
	if _, err := search([]float64{1}, 0, 0, func(int) (float64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
