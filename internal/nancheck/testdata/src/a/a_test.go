package a

import "testing"

func TestA(t *testing.T) {
	d, n, limit := 1.0, 2, float32(3)
	if d > 1e-4 { // want `write !\(a <= b\)`
		t.Errorf("off by %g", d)
	}
	if n > 2 || (d < 1 && n == 3) { // want `write !\(a >= b\)`
		t.Fatal(d)
	}
	switch {
	case limit >= 2: // want `write !\(a < b\)`
		t.Error(limit)
	case limit >= 1:
	}
	if !(d <= 1e-4) || n > 3 {
		t.Fatalf("off by %g", d)
	}
	if d > 2 {
		d = 2
	}
}
