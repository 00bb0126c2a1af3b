package task

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDigests(t *testing.T) {
	var rows []Example
	for i := range 1000 {
		rows = append(rows, Example{Text: fmt.Sprint("row ", i%700)})
	}
	d := DigestsOf(rows[:500]).With(DigestsOf(rows[400:])) // with copies
	if len(d) != 700 || d.Count(rows) != 1000 || DigestsOf(rows[:100]).Count(rows) != 200 || Digests(nil).Count(rows) != 0 {
		t.Errorf("%d digests, %d of 1000 rows in them, %d in those of 100", len(d), d.Count(rows), DigestsOf(rows[:100]).Count(rows))
	}
	// sha256 of "a\x00b" and of "\x00" begins so, as Python's hashlib says.
	if got, want := DigestsOf([]Example{{Text: "a", Pair: "b"}, {}}), (Digests{0x59b271ae1bbc, 0x6e340b9cffb3}); !slices.Equal(got, want) {
		t.Errorf("got %x, expected %x", got, want)
	}
	dir := t.TempDir()
	if got, err := ReadDigests(dir); got != nil || err != nil {
		t.Errorf("without a file: %v, %v", got, err)
	}
	path := filepath.Join(dir, TrainedFile)
	put := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	put(string(d.JSON()))
	if got, err := ReadDigests(dir); err != nil || !slices.Equal(got, d) {
		t.Errorf("%d digests came back as %d (%v)", len(d), len(got), err)
	}
	for _, text := range []string{"{", `{"rows": 1, "digests": "AAAA"}`, `{"rows": 1, "digests": "?"}`, `{"rows": 2, "digests": "AAAAAAABAAAAAAAA"}`} {
		put(text)
		if _, err := ReadDigests(dir); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%s: got error %v", text, err)
		}
	}
}
