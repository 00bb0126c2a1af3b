//go:build amd64 && !noasm

package kernel

import "syscall"

// allowAMX asks Linux for the tile registers, which a process may not touch
// without permission, and reports whether it was given. It holds for all
// threads.
func allowAMX() bool {
	const archReqXcompPerm, xfeatureTileData = 0x1023, 18
	_, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, archReqXcompPerm, xfeatureTileData, 0)
	return errno == 0
}
