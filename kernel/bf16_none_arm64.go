//go:build arm64 && !noasm && !linux && !darwin && !windows

package kernel

func hasBF16() bool { return false }
