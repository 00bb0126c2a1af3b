package kernel

import (
	"math"
	"testing"
)

// TestToBF16: the nearest bfloat16, found among its neighbours, ties to the even
// one; what is too large becomes infinite and NaN stays NaN.
func TestToBF16(t *testing.T) {
	for b := uint32(0); b < 0xffff; b++ {
		low, high := FromBF16(uint16(b)), FromBF16(uint16(b+1))
		if low != low || high != high || math.IsInf(float64(low), 0) || math.IsInf(float64(high), 0) || math.Signbit(float64(low)) != math.Signbit(float64(high)) {
			continue
		}
		bits := b << 16
		even := uint16(b + b&1)
		for _, c := range []struct {
			offset uint32
			want   uint16
		}{{0, uint16(b)}, {1, uint16(b)}, {0x7fff, uint16(b)}, {0x8000, even}, {0x8001, uint16(b + 1)}, {0xffff, uint16(b + 1)}} {
			if got := ToBF16(math.Float32frombits(bits + c.offset)); got != c.want {
				t.Fatalf("%#x: %#x, want %#x", bits+c.offset, got, c.want)
			}
		}
	}
	if got := FromBF16(ToBF16(math.MaxFloat32)); !math.IsInf(float64(got), 1) {
		t.Errorf("the largest float32 became %v", got)
	}
	for _, bits := range []uint32{0x7fc00000, 0xffc12345, 0x7f800001} {
		if got := FromBF16(ToBF16(math.Float32frombits(bits))); got == got {
			t.Errorf("NaN %#x became %v", bits, got)
		}
	}
}
