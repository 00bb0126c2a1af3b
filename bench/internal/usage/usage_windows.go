package usage

import (
	"os"
	"syscall"
)

// Processor is the processor time that this process has used, in seconds.
func Processor() float64 {
	self, err := syscall.GetCurrentProcess()
	var begun, ended, kernel, user syscall.Filetime
	if err != nil || syscall.GetProcessTimes(self, &begun, &ended, &kernel, &user) != nil {
		return 0
	}
	seconds := func(t syscall.Filetime) float64 { // a span in steps of 100 ns
		return float64(uint64(t.HighDateTime)<<32|uint64(t.LowDateTime)) * 1e-7
	}
	return seconds(kernel) + seconds(user)
}

// Peak is 0: Windows tells nothing of the memory of a process that has ended.
func Peak(*os.ProcessState) int64 { return 0 }
