package kernel

import "math"

// ToInt8 writes a row as whole numbers of −127 to 127, the largest of them at one of
// these, and returns the factor that gives the values back: x ≈ factor·q, off by at most
// half the factor. A row of zeros, or so small that its factor would be 0, becomes zeros
// and 0. The values must be finite.
func ToInt8(q []int8, row []float32) (factor float32) {
	var most float32
	for _, v := range row {
		most = max(most, v, -v)
	}
	factor = most / 127
	if factor == 0 {
		clear(q)
		return 0
	}
	for i, v := range row {
		// A factor that lost digits, below float32's normal range, may give more than 127.
		x := math.RoundToEven(float64(v) / float64(factor))
		q[i] = int8(min(max(x, -127), 127))
	}
	return factor
}

// WidenInt8 writes factor·q to dst.
func WidenInt8(dst []float32, q []int8, factor float32) {
	q = q[:len(dst)]
	whole := len(dst) &^ 15 // fills the vectors of every form
	widenBytes.use(dst[:whole], q[:whole], factor)
	widenBytesPortable(dst[whole:], q[whole:], factor)
}

var widenBytes = portable(widenBytesPortable)

func widenBytesPortable(dst []float32, q []int8, factor float32) {
	for i, v := range q {
		dst[i] = factor * float32(v)
	}
}
