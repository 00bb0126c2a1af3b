package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestFullDisk runs testdata/full: what the commands say and leave on a disk that
// has not the room. It is the folder disk; "room N" leaves N kB of it free.
func TestFullDisk(t *testing.T) {
	probe := t.TempDir()
	if err := unix.Mount("tmpfs", probe, "tmpfs", 0, ""); err != nil {
		t.Skipf("TestFullDisk: a tmpfs cannot be mounted here: %v", err)
	}
	if err := unix.Unmount(probe, 0); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/full",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"model": scriptModel, "exits": scriptExits, "room": scriptRoom},
		Setup: func(env *testscript.Env) error {
			disk := filepath.Join(env.WorkDir, "disk")
			if err := os.Mkdir(disk, 0o777); err != nil {
				return err
			}
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"); err != nil {
				return err
			}
			env.Defer(func() {
				if err := unix.Unmount(disk, 0); err != nil {
					t.Error(err)
				}
			})
			return writeData(filepath.Join(env.WorkDir, "sst2"))
		},
	})
}

func scriptRoom(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: room KILOBYTES")
	}
	room, err := strconv.Atoi(args[0])
	ts.Check(err)
	ballast := ts.MkAbs("disk/ballast")
	ts.Check(os.RemoveAll(ballast))
	var disk unix.Statfs_t
	ts.Check(unix.Statfs(ts.MkAbs("disk"), &disk))
	free := int(disk.Bfree) * int(disk.Bsize)
	if free < room<<10 {
		ts.Fatalf("expected a disk with %d kB to spare, found %d bytes", room, free)
	}
	ts.Check(os.WriteFile(ballast, make([]byte, free-room<<10), 0o666))
}
