package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// openFile opens a file, or a directory for reading. Unlike os.OpenFile it lets others
// rename and remove what is open, as files here get their names while they are locked.
func openFile(path string, flag int) (*os.File, error) {
	access, how := uint32(windows.GENERIC_READ), uint32(windows.OPEN_EXISTING)
	if flag&os.O_CREATE != 0 {
		access, how = windows.GENERIC_READ|windows.GENERIC_WRITE, windows.OPEN_ALWAYS
	}
	name, err := windows.UTF16PtrFromString(path)
	if err == nil {
		const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
		var handle windows.Handle
		if handle, err = windows.CreateFile(name, access, share, nil, how, windows.FILE_FLAG_BACKUP_SEMANTICS, 0); err == nil {
			return os.NewFile(uintptr(handle), path), nil
		}
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: err}
}

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
