package kernel

import "syscall"

// wantLargePages asks for large pages, also in place of small ones that the Go heap has
// used before. Who does not give them, as Linux before 6.1 not the latter, leaves small
// ones.
func wantLargePages(x []byte) {
	const collapse = 25 // MADV_COLLAPSE
	_ = syscall.Madvise(x, syscall.MADV_HUGEPAGE)
	_ = syscall.Madvise(x, collapse)
}
