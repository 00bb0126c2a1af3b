//go:build noasm || !amd64

package ntk

func useDigits() bool { return false }

func absMax(g []float32) float32 { return absMaxPortable(g) }

func split(hi, lo []byte, sign []int8, g []float32, inverse float32) int32 {
	return splitPortable(hi, lo, sign, g, inverse)
}

func signDots(out []int32, hi, lo []byte, sign []int8, stride, groups int) {
	signDotsPortable(out, hi, lo, sign, stride, groups)
}
