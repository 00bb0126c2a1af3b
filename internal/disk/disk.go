// Package disk is the file system as the program uses it: files and names, what
// differs between systems (locks, exchanging two names, syncing a directory), and
// a seam at which tests let any operation fail.
package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Op is an operation that may fail.
type Op string

// The operations.
const (
	OpOpen     Op = "open" // an existing file or directory
	OpCreate   Op = "create"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpMkdir    Op = "mkdir"
)

// Fault is asked before each operation; tests set it, before anything runs. An
// error that it returns is what the operation comes to, after n bytes of a read
// or write of size bytes.
var Fault func(op Op, path string, size int) (n int, err error)

// fault asks Fault, and words its error as the system's.
func fault(op Op, path string, size int) (n int, err error) {
	if Fault == nil {
		return size, nil
	}
	if n, err = Fault(op, path, size); err != nil {
		return n, &os.PathError{Op: string(op), Path: path, Err: err}
	}
	return size, nil
}

// File is an open file.
type File struct {
	*os.File
	size int64 // when it was opened for reading; -1 for another
}

// Open opens a file or directory for reading. If another program makes the file
// shorter, the end that is read then is an error and not the end of a smaller file.
func Open(path string) (*File, error) {
	if _, err := fault(OpOpen, path, 0); err != nil {
		return nil, err
	}
	f, err := file(openFile(path, os.O_RDONLY))
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		f.size = info.Size()
	}
	return f, nil
}

// Create opens a file for reading and writing, new or as it is.
func Create(path string) (*File, error) {
	if _, err := fault(OpCreate, path, 0); err != nil {
		return nil, err
	}
	return file(openFile(path, os.O_CREATE|os.O_RDWR))
}

// Temporary creates a file in the system's folder for such, which is gone when
// closed.
func Temporary(pattern string) (*File, error) {
	if _, err := fault(OpCreate, filepath.Join(os.TempDir(), pattern), 0); err != nil {
		return nil, err
	}
	if f, err := nameless(os.TempDir()); err == nil {
		return &File{f, -1}, nil
	}
	f, err := os.CreateTemp("", pattern)
	if err != nil {
		return nil, err
	}
	return &File{f, -1}, removeOpen(f.Name())
}

func file(f *os.File, err error) (*File, error) {
	if err != nil {
		return nil, err
	}
	return &File{f, -1}, nil
}

// The methods of os.File with which data are read and written.

func (f *File) Read(p []byte) (int, error) {
	n, err := do(OpRead, f.Name(), p, f.File.Read)
	if err == io.EOF {
		if info, failed := f.Stat(); failed == nil && info.Size() < f.size {
			err = fmt.Errorf("%s: expected the %d bytes it had when it was opened, found %d: another program writes to it", f.Name(), f.size, info.Size())
		}
	}
	return n, err
}

func (f *File) ReadAt(p []byte, at int64) (int, error) {
	return do(OpRead, f.Name(), p, func(p []byte) (int, error) { return f.File.ReadAt(p, at) })
}

func (f *File) Write(p []byte) (int, error) {
	return do(OpWrite, f.Name(), p, f.File.Write)
}

func (f *File) WriteAt(p []byte, at int64) (int, error) {
	return do(OpWrite, f.Name(), p, func(p []byte) (int, error) { return f.File.WriteAt(p, at) })
}

// ReadFrom hides os.File's, which would write past Write.
func (f *File) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{f}, r)
}

// WriteTo hides os.File's, which would read past Read.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}

func do(op Op, path string, p []byte, call func([]byte) (int, error)) (int, error) {
	n, failed := fault(op, path, len(p))
	n, err := call(p[:n])
	if failed != nil {
		err = failed
	}
	return n, err
}

// Truncate sets the file's size.
func (f *File) Truncate(size int64) error {
	if _, err := fault(OpTruncate, f.Name(), 0); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Sync makes what was written lasting.
func (f *File) Sync() error {
	if _, err := fault(OpSync, f.Name(), 0); err != nil {
		return err
	}
	return f.File.Sync()
}

// ReadFile reads a whole file.
func ReadFile(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// ReadDir lists a directory, sorted.
func ReadDir(path string) ([]os.DirEntry, error) {
	if _, err := fault(OpOpen, path, 0); err != nil {
		return nil, err
	}
	return os.ReadDir(path)
}

// Rename renames a file or directory; a file, or an empty directory, that has the
// new name goes.
func Rename(from, to string) error {
	if _, err := fault(OpRename, to, 0); err != nil {
		return err
	}
	if info, err := os.Lstat(to); err == nil && info.IsDir() {
		if err := os.Remove(to); err != nil {
			return err
		}
	}
	return os.Rename(from, to)
}

// Symlink makes a symbolic link.
func Symlink(target, path string) error {
	if _, err := fault(OpCreate, path, 0); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// Exchange swaps two names at once. Not every system and file system can.
func Exchange(a, b string) error {
	if _, err := fault(OpRename, b, 0); err != nil {
		return err
	}
	return exchange(a, b)
}

// Remove removes a file or an empty directory.
func Remove(path string) error {
	if _, err := fault(OpRemove, path, 0); err != nil {
		return err
	}
	return os.Remove(path)
}

// RemoveAll removes a file, or a directory with all in it.
func RemoveAll(path string) error {
	if _, err := fault(OpRemove, path, 0); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// Mkdir makes a directory.
func Mkdir(path string) error {
	if _, err := fault(OpMkdir, path, 0); err != nil {
		return err
	}
	return os.Mkdir(path, 0o777)
}

// MkdirAll makes a directory and those above it, where they are not there.
func MkdirAll(path string) error {
	if _, err := fault(OpMkdir, path, 0); err != nil {
		return err
	}
	return os.MkdirAll(path, 0o777)
}

// SyncDir makes the names in a directory lasting.
func SyncDir(path string) error {
	f, err := Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if err != nil && noDirectorySync(err) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// ErrLocked tells that another process, or another part of this one, has the lock.
var ErrLocked = errors.New("it is being written already, perhaps by another process")

// Lock takes the lock of an open file or directory, which goes when it is closed
// or the process ends. Where another has it, it waits or returns ErrLocked. File
// systems without locks are used without.
func Lock(f *File, wait bool) error {
	if lock(f, wait) {
		return nil
	}
	return fmt.Errorf("%s: %w", f.Name(), ErrLocked)
}
