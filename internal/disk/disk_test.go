package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlpfusion/internal/disk"
)

// A file that another program makes shorter does not end where that left off.
func TestCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("line\n"), 20_000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 50_000); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(f)
	if err == nil || !strings.Contains(err.Error(), "file: expected the 100000 bytes it had when it was opened, found 50000: another program writes to it") {
		t.Errorf("reading a file that was cut: %v", err)
	}

	// One that grows, as a log does, is read to its end.
	if f, err = disk.Open(path); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(path, make([]byte, 60_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(f); err != nil || len(data) != 60_000 {
		t.Errorf("reading a file that grew: %d bytes, %v", len(data), err)
	}
}

// A fault at half of a write leaves half, and the error names the file.
func TestFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := disk.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	broken := errors.New("broken")
	disk.Fault = func(op disk.Op, _ string, size int) (int, error) {
		if op == disk.OpWrite {
			return size / 2, broken
		}
		return size, nil
	}
	defer func() { disk.Fault = nil }()
	n, err := f.Write([]byte("1234"))
	if !errors.Is(err, broken) || n != 2 || !strings.Contains(err.Error(), path) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if data, err := os.ReadFile(path); string(data) != "12" {
		t.Errorf("the file holds %q (%v)", data, err)
	}
}
