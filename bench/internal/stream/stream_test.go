package stream

import "testing"

// TestPeak: a machine reads between 0.1 and 10,000 GB/s.
func TestPeak(t *testing.T) {
	if got := Peak(1); !(got > 0.1 && got < 1e4) {
		t.Errorf("reads %v GB/s", got)
	}
}
