package kernel

import (
	"fmt"
	"os"
	"strings"
)

// ISA is a set of extensions of an instruction set.
type ISA uint

const (
	AVX2       ISA = 1 << iota // AVX2, FMA and BMI2
	AVX512                     // AVX-512 F, BW, DQ and VL
	AVX512BF16                 // VDPBF16PS and the conversions
	fastBF16                   // VDPBF16PS multiplies at twice the speed of float32; see detect
	AMX                        // AMX tiles with bfloat16
	NEON                       // arm64's vectors of 128 bits
	NEONBF16                   // BFDOT and the conversions
)

// level is a set of extensions that MLPFUSION_ISA can name. Who asks for avx512bf16
// or amx gets VDPBF16PS, fast or not.
type level struct {
	name string
	isa  ISA
}

var levels = []level{
	{"portable", 0}, // plain Go, every machine
	{"avx2", AVX2},
	{"avx512", AVX2 | AVX512},
	{"avx512bf16", AVX2 | AVX512 | AVX512BF16 | fastBF16},
	{"amx", AVX2 | AVX512 | AVX512BF16 | fastBF16 | AMX},
	{"neon", NEON},
	{"neonbf16", NEON | NEONBF16},
}

// isaEnv names the environment variable that forces a level.
const isaEnv = "MLPFUSION_ISA"

var (
	detected         = detect() // what this machine and build can run
	usable, errForce = choose(os.Getenv(isaEnv))
)

// Has reports whether extensions may be used: the processor, the operating system
// and the build have them, and MLPFUSION_ISA allows them.
func Has(isa ISA) bool { return isa&^usable == 0 }

// FastBF16 reports whether products of bfloat16 are faster here than float32's.
func FastBF16() bool { return gemms[BF16].use != gemms[FP32].use }

// CheckISA returns an error when the environment variable MLPFUSION_ISA names a
// level that there is not, or one that this machine lacks; the machine's best is then
// used. Programs refuse to start.
func CheckISA() error { return errForce }

// Level returns the name of the highest level in use: the machine's, or the lower
// one that MLPFUSION_ISA asks for. Builds with the tag noasm have portable only.
func Level() string {
	name := levels[0].name
	for _, l := range levels {
		if Has(l.isa &^ fastBF16) {
			name = l.name
		}
	}
	return name
}

// choose returns the extensions that a level's name allows.
func choose(name string) (ISA, error) {
	if name == "" {
		return detected, nil
	}
	var here []string // the levels that this machine has
	known := false
	for _, l := range levels {
		has := (l.isa&^fastBF16)&^detected == 0
		switch {
		case l.name == name && has:
			return l.isa, nil
		case l.name == name:
			known = true
		case has:
			here = append(here, l.name)
		}
	}
	why := "which is no level"
	if known {
		why = "which this machine lacks"
	}
	return detected, fmt.Errorf("%s: expected one of %s, found %q, %s", isaEnv, strings.Join(here, ", "), name, why)
}
