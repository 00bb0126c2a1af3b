//go:build !amd64 || noasm

package kernel

// interpreted is not called: every form of such a build runs natively.
func interpreted(any) any { panic("no interpreter for this machine's assembly") }
