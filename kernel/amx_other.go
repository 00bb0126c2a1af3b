//go:build amd64 && !noasm && !linux

package kernel

func allowAMX() bool { return false }
