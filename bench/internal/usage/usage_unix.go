//go:build unix

// Package usage reads what a process has used.
package usage

import (
	"os"
	"runtime"
	"syscall"
)

// Processor is the processor time that this process has used, in seconds.
func Processor() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) * 1e-9
}

// Peak is the largest resident memory of a process that has ended, in bytes.
func Peak(p *os.ProcessState) int64 {
	most := int64(p.SysUsage().(*syscall.Rusage).Maxrss)
	if runtime.GOOS == "darwin" { // the others count kilobytes
		return most
	}
	return most << 10
}
