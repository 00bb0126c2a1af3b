package kernel

import (
	"os"
	"strings"
	"testing"
)

// TestInnerLoops counts instructions: in the inner loop of float32's product on arm64 nine
// in ten at least are multiply-adds of four lanes. That stands in for a timing, which
// needs the machine.
func TestInnerLoops(t *testing.T) {
	text, err := os.ReadFile("neon_arm64.s")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		function, loop string
		least          float64
	}{
		{"tile4x16NEON", "eight", 0.9},
		{"tile4x16HalvesNEON", "two", 0}, // half as many words of B are read, and
		{"tile4x16BytesNEON", "four", 0}, // here a quarter: these loops wait for memory
	} {
		_, body, _ := strings.Cut(string(text), "TEXT ·"+c.function+"(SB)")
		_, body, _ = strings.Cut(body, "\n"+c.loop+":\n")
		body, _, _ = strings.Cut(body, "BGE "+c.loop+"\n")
		instructions := strings.Count(body, "\n") + 1
		fma := strings.Count(body, "// fmla v")
		share := float64(fma) / float64(instructions)
		t.Logf("%s: %d of %d instructions of the inner loop are multiply-adds, %.1f %%", c.function, fma, instructions, 100*share)
		if !(share >= c.least) {
			t.Errorf("%s: the share of multiply-adds is %.3f, want %v", c.function, share, c.least)
		}
	}
}
