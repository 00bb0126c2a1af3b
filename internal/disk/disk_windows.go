package disk

import (
	"errors"

	"golang.org/x/sys/windows"
)

// lock reports false only where another has the lock. A directory has none here.
func lock(f *File, wait bool) bool {
	how := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK)
	if !wait {
		how |= windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	// A byte far behind the data, which other processes may go on reading.
	err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1 << 30})
	return !errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}

// noDirectorySync: a directory cannot be opened for writing here, nor synced.
func noDirectorySync(err error) bool { return true }

// removeOpen leaves the name: an open file keeps it here, and the system clears its
// folder of temporary files.
func removeOpen(string) error { return nil }

// Full reports whether an error is that of a full disk.
func Full(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
