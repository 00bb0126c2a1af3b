//go:build !amd64 || noasm

package kernel

// interpreted is nil: what this machine lacks is not tested on it.
var interpreted func(any) any
