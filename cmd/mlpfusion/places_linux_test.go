package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPlaces runs fuse between places of every kind: it writes there, or says one
// sentence and leaves nothing.
func TestPlaces(t *testing.T) {
	long := strings.Repeat("a", 250)
	for name, c := range map[string]struct {
		model, out string
		say        string // the end of the sentence, if it is refused
		make       func(t *testing.T, dir string) error
	}{
		"OUT within MODEL":       {out: "m/out"},
		"OUT around MODEL":       {model: "around/m", out: "around", say: "around: it exists and is no model directory, so it is not replaced; choose another name"},
		"OUT is MODEL":           {out: "./m", say: "m: expected another directory than m, which it is made of"},
		"OUT is a link to MODEL": {out: "link", say: "which it is made of", make: func(t *testing.T, dir string) error { return os.Symlink("m", filepath.Join(dir, "link")) }},
		"OUT is a link": {out: "link", make: func(t *testing.T, dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "there"), 0o777), os.Symlink("there", filepath.Join(dir, "link")))
		}},
		"OUT is a link to nothing": {out: "link", say: "link: expected a directory or a free name, found a link to nothing", make: func(t *testing.T, dir string) error { return os.Symlink("nowhere", filepath.Join(dir, "link")) }},
		"MODEL is a link":          {model: "link", out: "out", make: func(t *testing.T, dir string) error { return os.Symlink("m", filepath.Join(dir, "link")) }},
		"OUT below a file":         {out: "m/vocab.txt/out", say: "not a directory"},
		"4,000 bytes":              {out: strings.Repeat(long+"/", 15) + strings.Repeat("b", 235)},
		"more than the system's":   {out: strings.Repeat(long+"/", 17), say: "file name too long"},
		"a name of 255 bytes":      {out: strings.Repeat("b", 255), say: "file name too long"},
		"a line's end":             {model: "m\nodel", out: "o\nut"},
		"a line's end, refused":    {model: "none\n\x1b[2J", out: "out", say: `none; \x1b[2J: no such directory, and no hub name (org/name or org/name@revision) either`},
		"no UTF-8":                 {model: "m\xff", out: "o\xff"},
		"no UTF-8, refused":        {model: "none\xff", out: "out", say: `none\xff: no such directory, and no hub name (org/name or org/name@revision) either`},
		"a folder to read only": {out: "sealed/out", say: "read-only file system", make: func(t *testing.T, dir string) error {
			sealed := filepath.Join(dir, "sealed")
			err := os.Mkdir(sealed, 0o777)
			if err == nil {
				err = unix.Mount(sealed, sealed, "", unix.MS_BIND, "")
			}
			if err == nil { // root writes where permissions forbid it, and not here
				err = unix.Mount("", sealed, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
				t.Cleanup(func() { _ = unix.Unmount(sealed, unix.MNT_DETACH) })
			}
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.model == "" {
				c.model = "m"
			}
			at := c.model
			if c.model == "link" || strings.HasPrefix(c.model, "none") {
				at = "m"
			}
			if err := writeModel("bert", filepath.Join(dir, at)); err != nil {
				t.Fatal(err)
			}
			if c.make != nil {
				if err := c.make(t, dir); errors.Is(err, unix.EPERM) {
					t.Skipf("TestPlaces: a folder cannot be mounted here: %v", err)
				} else if err != nil {
					t.Fatal(err)
				}
			}
			before := placeNames(t, dir)
			cmd := command(dir, "", "fuse", c.model, c.out, "--layers", "all", "--width", "16")
			var said bytes.Buffer
			cmd.Stderr = &said
			err := cmd.Run()
			if c.say == "" {
				if err != nil || said.Len() > 0 {
					t.Fatalf("%v: %s", err, said.String())
				}
				if _, err := os.Stat(filepath.Join(dir, c.out, "model.safetensors")); err != nil {
					t.Error(err)
				}
				return
			}
			if got := said.String(); cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(got, "mlpfusion: ") || !strings.HasSuffix(got, c.say+"\n") || strings.Count(got, "\n") != 1 {
				t.Errorf("exit code %d, %q; expected one sentence that ends with %q", cmd.ProcessState.ExitCode(), got, c.say)
			}
			if after := placeNames(t, dir); !slices.Equal(before, after) {
				t.Errorf("left %q, found %q", after, before)
			}
		})
	}
}

// placeNames lists a folder and the one in it that may hold MODEL.
func placeNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, pattern := range []string{"*", ".*", "*/*", "*/.*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	return names
}
