package fma

import (
	"testing"

	"mlpfusion/kernel"
)

// TestPeak runs every loop that the machine has.
func TestPeak(t *testing.T) {
	for _, prec := range []kernel.Precision{kernel.FP32, kernel.BF16} {
		peak := Peak(prec, 1)
		if known := prec == kernel.FP32 || !kernel.Has(kernel.AMX); (peak > 0) != known {
			t.Errorf("precision %v at level %v: a peak of %g GFLOPS", prec, kernel.Level(), peak)
		}
		t.Logf("precision %v: %.1f GFLOPS", prec, peak)
	}
}
