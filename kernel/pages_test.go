package kernel

import (
	"testing"
	"unsafe"
)

// TestShelf takes pieces: zero, of the length wanted, at whole cache lines and apart.
func TestShelf(t *testing.T) {
	var s shelf
	var all [][]float32
	for _, n := range []int{0, 1, 31, 32, shelfFloats - 100, 1000, shelfFloats + 1, 5} {
		x := s.take(n)
		if len(x) != n || cap(x) != n {
			t.Fatalf("%d floats: found %d of %d", n, len(x), cap(x))
		}
		if n > 0 && uintptr(unsafe.Pointer(&x[0]))%128 != 0 {
			t.Errorf("%d floats begin at %p", n, &x[0])
		}
		for i, v := range x {
			if v != 0 {
				t.Fatalf("%d floats: element %d is %v", n, i, v)
			}
			x[i] = float32(n)
		}
		all = append(all, x)
	}
	for _, x := range all {
		for i, v := range x {
			if v != float32(len(x)) {
				t.Fatalf("%d floats: element %d was overwritten with %v", len(x), i, v)
			}
		}
	}
}
