package train

import (
	"fmt"
	"math"
)

// Schedule is how the learning rate changes over the steps.
type Schedule string

// The schedules, as transformers names them. All begin with a linear warm-up.
const (
	Linear   Schedule = "linear"   // then down to 0 at the last step
	Cosine   Schedule = "cosine"   // then half a cosine down to 0
	Constant Schedule = "constant" // then unchanged
)

// ParseSchedule reads a schedule's name.
func ParseSchedule(name string) (Schedule, error) {
	switch s := Schedule(name); s {
	case Linear, Cosine, Constant:
		return s, nil
	}
	return "", fmt.Errorf("schedule: expected linear, cosine or constant, found %q", name)
}

// Factor is what multiplies the learning rate at the given step, counted from
// 0, of total steps of which the first warmup rise from 0.
func (s Schedule) Factor(step, warmup, total int) float64 {
	if step < warmup {
		return float64(step) / float64(warmup)
	}
	if s == Constant {
		return 1
	}
	done := float64(step-warmup) / float64(max(1, total-warmup))
	if s == Cosine {
		return max(0, 0.5*(1+math.Cos(math.Pi*done)))
	}
	return max(0, 1-done)
}
