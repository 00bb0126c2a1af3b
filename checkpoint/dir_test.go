package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpenDir(t *testing.T) {
	d, err := OpenDir("testdata/golden/sharded")
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	sums, err := d.SHA256(context.Background(), func(n int64) { last = n })
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, f := range d.Weights.files {
		path := f.Name()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		size += int64(len(data))
		if want := fmt.Sprintf("%x", sha256.Sum256(data)); sums[filepath.Base(path)] != want {
			t.Errorf("%s: %s, expected %s", path, sums[filepath.Base(path)], want)
		}
	}
	if len(sums) != 2 || last != size {
		t.Errorf("%d sums, progress ended at %d of %d", len(sums), last, size)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.SHA256(cancelled, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}

	dir := t.TempDir()
	_, err = OpenDir(filepath.Join(dir, "none"))
	wants(t, err, "no such file")
	_, err = OpenDir(dir)
	wants(t, err, "config.json, found none")
	write(t, filepath.Join(dir, "config.json"), `{}`)
	_, err = OpenDir(dir)
	wants(t, err, "found neither")
	_, err = OpenDir(filepath.Join(dir, "config.json"))
	wants(t, err, "found a file")
}

// create makes an output of the golden model.
func create(t testing.TB, target string, overwrite bool) *Output {
	t.Helper()
	d, err := OpenDir("testdata/golden/single")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	o, err := CreateOutput(target, overwrite)
	if err != nil {
		t.Fatal(err)
	}
	copyAll(t, d.Weights, filepath.Join(o.Dir, weightsFile))
	if err := o.WriteConfig(d.Config); err != nil {
		t.Fatal(err)
	}
	if err := o.Carry(d.Path, d.Carry); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOutput(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "new", "out")
	o := create(t, target, false)
	if exists(target) {
		t.Error("the target is there before Commit")
	}
	_, err := CreateOutput(target, false)
	wants(t, err, "being written already")
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	o.Abort() // does nothing any more
	if got := fileNames(t, target); !slices.Equal(got, []string{"config.json", weightsFile}) {
		t.Errorf("written: %q", got)
	}
	d, err := OpenDir(target)
	if err != nil {
		t.Fatal(err)
	}

	_, err = CreateOutput(target, false)
	wants(t, err, "it exists already; give --overwrite")
	write(t, filepath.Join(target, "vocab.txt"), "old")
	aborted := create(t, target, true)
	aborted.Abort()
	if !exists(filepath.Join(target, "vocab.txt")) {
		t.Error("Abort removed the old directory")
	}
	if err := create(t, target, true).Commit(); err != nil {
		t.Fatal(err)
	}
	if got := fileNames(t, target); !slices.Equal(got, []string{"config.json", weightsFile}) {
		t.Errorf("replaced: %q", got)
	}
	if got := fileNames(t, filepath.Dir(target)); !slices.Equal(got, []string{"out"}) {
		t.Errorf("left behind %q", got)
	}
	// What was open before the replacement can still be read.
	float32s(t, d.Weights, d.Weights.Names()[0])
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestOutputRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "x")
	_, err := CreateOutput(filepath.Join(dir, "file"), true)
	wants(t, err, "found a file")
	write(t, filepath.Join(dir, "photos", "cat.jpg"), "x")
	_, err = CreateOutput(filepath.Join(dir, "photos"), true)
	wants(t, err, "is no model directory, so it is not replaced")
	write(t, filepath.Join(dir, "app", "config.json"), `{"port": 80}`)
	_, err = CreateOutput(filepath.Join(dir, "app"), true)
	wants(t, err, "is no model directory, so it is not replaced")
	write(t, filepath.Join(dir, "model", "config.json"), `{"model_type": "bert"}`)
	write(t, filepath.Join(dir, "model", ".git", "HEAD"), "x")
	_, err = CreateOutput(filepath.Join(dir, "model"), true)
	wants(t, err, "it holds the folder .git")
	if got := fileNames(t, dir); !slices.Equal(got, []string{"app", "file", "model", "photos"}) {
		t.Errorf("left behind %q", got)
	}
	// An empty directory is as good as none, and a killed run's rest is removed.
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ".empty.tmp", "half", "file"), "x")
	if err := create(t, filepath.Join(dir, "empty"), false).Commit(); err != nil {
		t.Fatal(err)
	}
	if got := fileNames(t, filepath.Join(dir, "empty")); !slices.Equal(got, []string{"config.json", weightsFile}) {
		t.Errorf("written: %q", got)
	}
}

// A link to a directory stays a link.
func TestOutputThroughLink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "real", "config.json"), `{"model_type": "bert"}`)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if err := create(t, link, true).Commit(); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); to != "real" || err != nil {
		t.Errorf("the link is %q, %v", to, err)
	}
	open(t, link)
}

// A link that leads nowhere is refused before anything is computed.
func TestOutputThroughDeadLink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("gone", link); err != nil {
		t.Fatal(err)
	}
	_, err := CreateOutput(link, true)
	if want := link + ": expected a directory or a free name, found a link to nothing"; err == nil || err.Error() != want {
		t.Errorf("found %v, want %s", err, want)
	}
}
