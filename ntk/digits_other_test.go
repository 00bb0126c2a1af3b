//go:build noasm || !amd64

package ntk

func signDotsForms() map[string]func(out []int32, hi, lo []byte, sign []int8, stride, groups int) {
	return map[string]func(out []int32, hi, lo []byte, sign []int8, stride, groups int){"chosen": signDots}
}
