//go:build !noasm

package kernel

import "golang.org/x/sys/unix"

// hasBF16 asks macOS; versions that do not know the name run on processors without.
func hasBF16() bool {
	has, err := unix.SysctlUint32("hw.optional.arm.FEAT_BF16")
	return err == nil && has != 0
}
