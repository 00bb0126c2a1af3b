package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// On a full disk nothing half-written is left, whatever was being written.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("TestFullDisk: a tmpfs cannot be mounted here: %v", err)
	}
	defer func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	}()
	old := filepath.Join(disk, "old.json")
	if err := WriteFileAtomic(old, []byte("old")); err != nil {
		t.Fatal(err)
	}
	large := make([]float32, 128<<10)
	for name, write := range map[string]func() error{
		"weights": func() error {
			w, err := Create(disk, []Spec{{"a", F32, []int{len(large)}}}, WriteOptions{})
			if err != nil {
				return err
			}
			defer w.Abort()
			return w.WriteFloat32("a", large)
		},
		"small file": func() error { return WriteFileAtomic(old, float32Bytes(large)) },
		"snapshot": func() error {
			return SaveSnapshot(filepath.Join(disk, "snapshot"), 1, []Section{{Name: "a", Float32: large}})
		},
		"output": func() error {
			o, err := CreateOutput(filepath.Join(disk, "model"), false)
			if err != nil {
				return err
			}
			defer o.Abort()
			source := t.TempDir()
			if err := os.WriteFile(filepath.Join(source, "vocab.txt"), float32Bytes(large), 0o644); err != nil {
				return err
			}
			return o.Carry(source, []string{"vocab.txt"})
		},
	} {
		if err := write(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: expected no space left on device, found %v", name, err)
		}
		if got := fileNames(t, disk); len(got) != 1 || got[0] != "old.json" {
			t.Errorf("%s: left behind %q", name, got)
		}
		if data, err := os.ReadFile(old); string(data) != "old" {
			t.Errorf("%s: the old file is %q (%v)", name, data, err)
		}
	}
}
