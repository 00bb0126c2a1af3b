//go:build !noasm

package kernel

import "golang.org/x/sys/cpu"

// detect returns the extensions of this processor that the operating system lets
// programs use. fastBF16 is not among them on Intel's processors: measured there,
// VDPBF16PS does half the multiply-adds a second that float32's instruction does.
func detect() ISA { return detectAsking(allowAMX) }

// detectAsking is detect with what asks for permission to use the tiles.
func detectAsking(allow func() bool) (isa ISA) {
	x := &cpu.X86
	add := func(has bool, needs, e ISA) {
		if has && needs&^isa == 0 {
			isa |= e
		}
	}
	add(x.HasAVX2 && x.HasFMA && x.HasBMI2, 0, AVX2)
	add(x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL, AVX2, AVX512)
	add(x.HasAVX512BF16, AVX512, AVX512BF16)
	add(vendor() != "GenuineIntel", AVX512BF16, fastBF16)
	add(x.HasAMXTile && x.HasAMXBF16 && allow(), AVX512BF16, AMX)
	return isa
}

// vendor returns the name that CPUID gives the processor's maker.
func vendor() string {
	var name [12]byte
	cpuVendor(&name)
	return string(name[:])
}

//go:noescape
func cpuVendor(name *[12]byte)

// relax lets a loop that waits for another processor take a few dozen cycles.
//
//go:noescape
func relax()
