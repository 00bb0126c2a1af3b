//go:build !linux

package kernel

// wantLargePages does nothing: only Linux is asked.
func wantLargePages([]byte) {}
