package checkpoint

import (
	"errors"
	"os"
	"path/filepath"

	"mlpfusion/internal/disk"
)

// AtomicFile is a file under a temporary name that takes its real name, whole
// and synced, on Commit. The temporary name is fixed (".name.tmp") and locked:
// what a killed run leaves behind is used again by the next one, and two
// writers of one file do not mix.
type AtomicFile struct {
	*disk.File
	path string
	done bool
}

// CreateAtomic starts a file that will replace path on Commit. The caller
// ends with Commit, or with Abort on every other way out.
func CreateAtomic(path string) (*AtomicFile, error) { return createAtomic(path, false) }

func createAtomic(path string, wait bool) (*AtomicFile, error) {
	f, err := lockTemporary(temporaryName(path), wait, disk.Create)
	if err != nil {
		return nil, err
	}
	a := &AtomicFile{File: f, path: path}
	if err := f.Truncate(0); err != nil {
		a.Abort()
		return nil, err
	}
	return a, nil
}

// temporaryName is hidden and in the same directory, so that a rename works.
func temporaryName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
}

// lockTemporary opens a temporary file or directory and takes its lock. The
// lock goes with the process, however that ends. Where another has it, it waits
// or gives up.
func lockTemporary(name string, wait bool, open func(string) (*disk.File, error)) (*disk.File, error) {
	for {
		f, err := open(name)
		if err != nil {
			return nil, err
		}
		if err := disk.Lock(f, wait); err != nil {
			_ = f.Close()
			return nil, err
		}
		// Between opening and locking its last owner may have renamed it.
		opened, err1 := f.Stat()
		named, err2 := os.Stat(name)
		if err1 == nil && err2 == nil && os.SameFile(opened, named) {
			return f, nil
		}
		_ = f.Close()
	}
}

// Commit syncs the file, gives it its real name and syncs the directory. On an
// error the temporary file is removed and the old file, if any, is untouched.
func (a *AtomicFile) Commit() error {
	if err := a.Sync(); err != nil {
		a.Abort()
		return err
	}
	if err := disk.Rename(a.Name(), a.path); err != nil {
		a.Abort()
		return err
	}
	a.done = true
	return errors.Join(a.Close(), disk.SyncDir(filepath.Dir(a.path)))
}

// Abort removes the temporary file. After Commit or Abort it does nothing.
func (a *AtomicFile) Abort() {
	if a.done {
		return
	}
	a.done = true
	_ = disk.Remove(a.Name()) // before closing: that gives up the lock, and with it the name
	_ = a.Close()
}

// WriteFileAtomic writes a small file: afterwards path holds the old content
// or all of data, whatever happens in between. It waits for others that write it.
func WriteFileAtomic(path string, data []byte) error {
	f, err := createAtomic(path, true)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}
