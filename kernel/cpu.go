package kernel

import (
	"fmt"
	"os"
)

// ISA is a level of the x86 instruction set. Each level includes those below
// it, so a function runs its best implementation at or below the level in use.
type ISA int

const (
	Portable   ISA = iota // plain Go, every machine
	AVX2                  // AVX2 and FMA
	AVX512                // AVX-512 F, BW, DQ, VL
	AVX512BF16            // and VDPBF16PS
	AMX                   // and AMX tiles with bfloat16
)

var isaNames = [...]string{"portable", "avx2", "avx512", "avx512bf16", "amx"}

func (i ISA) String() string { return isaNames[i] }

var (
	detected = detect()                  // the best that this machine and build can run
	isa      = choose(os.Getenv(isaEnv)) // the level in use; only tests change it later
)

// isaEnv names the environment variable that forces a lower level: portable,
// avx2, avx512, avx512bf16 or amx. A level that the machine lacks counts as the
// best that it has.
const isaEnv = "MLPFUSION_ISA"

// Level returns the instruction set level in use: the machine's best, or the
// lower one that the environment variable MLPFUSION_ISA asks for. Builds with
// the tag noasm have Portable only.
func Level() ISA { return isa }

func choose(name string) ISA {
	if name == "" {
		return detected
	}
	for i, s := range isaNames {
		if s == name {
			return min(ISA(i), detected)
		}
	}
	fmt.Fprintf(os.Stderr, "%s: expected one of %v, found %q; using %s\n", isaEnv, isaNames, name, detected)
	return detected
}
