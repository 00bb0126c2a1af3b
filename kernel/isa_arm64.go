//go:build !noasm

package kernel

// detect returns the extensions of this processor. Every arm64 processor that Go runs on
// has NEON.
func detect() ISA {
	if hasBF16() {
		return NEON | NEONBF16
	}
	return NEON
}

// relax lets a loop that waits for another processor take a few dozen cycles.
//
//go:noescape
func relax()
