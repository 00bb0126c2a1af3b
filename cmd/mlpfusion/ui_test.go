package main

import "testing"

func TestSignificant(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.0000123: "1.23e-05", 0.0456: "0.0456", 0.9994: "0.999", 0.9996: "1.00", 1: "1.00", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 347.4: "347",
		1328: "1328", 9999: "9999", 9999.7: "10.0k", 24576: "24.6k", 295700: "296k", 999400: "999k", 999600: "1.00M", 1181568: "1.18M", 22713216: "22.7M", 1.5e9: "1.50G", 3e12: "3.00T",
	} {
		if got := significant(x); got != want {
			t.Errorf("significant(%v) = %s, want %s", x, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for want, got := range map[string]string{"1 block": count(1, "block"), "0 steps": count(0, "step"), "100 %": count(100, "%"), "2048 B": count(2048, "B")} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
