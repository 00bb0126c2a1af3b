package main

import (
	"os"
	"strings"
	"testing"
)

// TestRelease: the version is one in the command, in the Python package and at the head of
// the changelog.
func TestRelease(t *testing.T) {
	number := strings.TrimPrefix(release, "v")
	for path, want := range map[string]string{
		"../../python/mlpfusion/version.py": `__version__ = "` + number + `"` + "\n",
		"../../CHANGELOG.md":                "\n## [" + number + "] - ",
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		released := strings.Replace(string(text), "\n## [Unreleased]", "", 1)
		at := strings.Index(released, want)
		if at < 0 || strings.Contains(released[:at], "\n## [") {
			t.Errorf("%s: expected %q first, found it at %d", path, want, at)
		}
	}
}
