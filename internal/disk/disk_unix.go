//go:build unix

package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openFile opens a file, or a directory for reading.
func openFile(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o666) }

// lock reports false only where another has the lock.
func lock(f *File, wait bool) bool {
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	return !errors.Is(unix.Flock(int(f.Fd()), how), unix.EWOULDBLOCK)
}

// noDirectorySync tells the error of a file system that cannot sync directories.
func noDirectorySync(err error) bool { return errors.Is(err, unix.EINVAL) }

// removeOpen removes the name of an open file: the file goes when it is closed.
func removeOpen(path string) error { return os.Remove(path) }

// Full reports whether an error is that of a full disk.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
