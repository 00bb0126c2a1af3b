package peak

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

// TestBytes fills memory and gives it back: the peak stays until Reset.
func TestBytes(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("the system does not tell")
	}
	const size = 64 << 20
	Reset()
	before := Bytes()
	func() {
		x := make([]byte, size)
		for i := range x {
			x[i] = byte(i)
		}
		runtime.KeepAlive(x)
	}()
	debug.FreeOSMemory()
	if after := Bytes(); after < before+size/2 {
		t.Errorf("the peak went from %d to %d bytes with %d more", before, after, size)
	}
	top := Bytes()
	Reset()
	if after := Bytes(); after > top-size/2 {
		t.Skipf("reset leaves the peak at %d bytes of %d: this system cannot", after, top)
	}
}
