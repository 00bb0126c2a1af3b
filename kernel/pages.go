package kernel

import "unsafe"

const (
	pageFloats  = 2 << 20 / 4 // of a large page
	shelfFloats = 8 * pageFloats
)

// LargePages returns n zero floats in pages of 2 MB, where the system has such, for what
// is read from end to end over and over. A processor takes long to find 4 KB pages, above
// all in a virtual machine, where each step of the search takes several: one core of Zen
// 4 reads weights of bfloat16 for one row of A at 19 GB/s from those and at 33 from large
// ones.
func LargePages(n int) []float32 {
	size := (n + pageFloats - 1) / pageFloats * pageFloats
	x := make([]float32, size+pageFloats)
	from := -int(uintptr(unsafe.Pointer(&x[0]))/4) & (pageFloats - 1)
	x = x[from : from+size]
	if size > 0 {
		wantLargePages(unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*size))
	}
	return x[:n:n]
}

// shelf hands out memory in large pages, piece after piece.
type shelf struct{ rest []float32 }

// take returns n zero floats. They go with the last piece of their pages.
func (s *shelf) take(n int) []float32 {
	if n > len(s.rest) {
		s.rest = LargePages(max(n, shelfFloats))
	}
	x := s.rest[:n:n]
	s.rest = s.rest[min(len(s.rest), (n+31)&^31):] // the next one begins with a pair of cache lines
	return x
}
