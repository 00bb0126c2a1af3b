//go:build !(amd64 || arm64) || noasm

package kernel

func detect() ISA { return 0 }

func relax() {}
