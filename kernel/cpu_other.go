//go:build !amd64 || noasm

package kernel

func detect() ISA { return Portable }

func relax() {}
