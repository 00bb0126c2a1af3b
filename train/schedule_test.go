package train

import (
	"math"
	"testing"

	"mlpfusion/internal/golden"
)

// TestSchedules compares every factor with transformers' own schedules
// (scripts/goldens/schedule.py). Both compute in float64; only the order of a
// few operations may differ.
func TestSchedules(t *testing.T) {
	var cases []struct {
		Schedule      Schedule
		Warmup, Total int
		Factors       []float64
	}
	golden.JSON(t, "testdata/schedule.json", &cases)
	for _, c := range cases {
		for step, want := range c.Factors {
			if got := c.Schedule.Factor(step, c.Warmup, c.Total); !(math.Abs(got-want) <= 1e-15) {
				t.Errorf("%s with %d of %d steps of warm-up: factor %g at step %d, want %g", c.Schedule, c.Warmup, c.Total, got, step, want)
			}
		}
	}
	if _, err := ParseSchedule("exponential"); err == nil {
		t.Error("an unknown schedule was accepted")
	}
}
