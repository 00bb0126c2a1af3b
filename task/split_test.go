package task

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestHoldOut: which rows are held out is a rule of the data, in any order, and
// copies of a row go together.
func TestHoldOut(t *testing.T) {
	var rows []Example
	for i := range 3000 {
		rows = append(rows, Example{Text: fmt.Sprint("row ", i%2000), Label: float32(i % 2), Entry: 1 + i%2000})
	}
	split := func(rows []Example) map[string]bool {
		t.Helper()
		d := &Dataset{Train: slices.Clone(rows)}
		if !d.HoldOut() || d.DevName != "held out" || len(d.Train)+len(d.Dev) != len(rows) {
			t.Fatalf("%d and %d rows of %d", len(d.Train), len(d.Dev), len(rows))
		}
		held := map[string]bool{}
		for _, e := range d.Dev {
			held[e.Text] = true
		}
		for _, e := range d.Train {
			if held[e.Text] {
				t.Errorf("%q is on both sides", e.Text)
			}
		}
		return held
	}
	all := split(rows)
	if n := len(all); n < 190 || n > 210 {
		t.Errorf("%d of 2000 texts are held out, expected a tenth", n)
	}
	turned := slices.Clone(rows)
	slices.Reverse(turned)
	if !maps.Equal(split(turned), all) {
		t.Error("the order of the rows counts")
	}
	moved := 0
	for text := range split(rows[:2000]) { // without the copies
		if !all[text] {
			moved++
		}
	}
	if moved > 10 {
		t.Errorf("%d of %d rows are held out beside other copies only", moved, len(all))
	}
	for n := 2; n < 40; n++ {
		if held := len(split(rows[:n])); held != max(1, (n+5)/10) {
			t.Errorf("%d of %d rows are held out", held, n)
		}
	}
	for _, d := range []*Dataset{{}, {Train: rows[:1]}, {Train: []Example{rows[0], rows[0]}}, {Train: rows, Dev: rows[:1]}} {
		if n := len(d.Dev); d.HoldOut() || len(d.Dev) != n {
			t.Errorf("%d of %d rows are held out", len(d.Dev), len(d.Train))
		}
	}
}

func TestDigest(t *testing.T) {
	seen := map[uint64]int{}
	for i, e := range []Example{{Text: "a"}, {Text: "b"}, {Text: "a", Pair: "b", HasPair: true}, {Text: "a\x00b"}, {Target: "x"}, {}} {
		d := e.Digest()
		if j, ok := seen[d]; ok && (i != 3 || j != 2) {
			t.Errorf("rows %d and %d have the same digest", i, j)
		}
		seen[d] = i
	}
	a := Example{Text: "a", Target: "written", Label: 1, Entry: 3, Place: "x"}
	if b := (Example{Text: "a"}); a.Digest() != b.Digest() {
		t.Error("what is not read counts")
	}
}

func TestLoadSplit(t *testing.T) {
	files := func(names ...string) map[string]string {
		out := map[string]string{}
		for _, n := range names {
			out[n] = "text,label\n" + n + ",good\n"
		}
		return out
	}
	many := "text,label\n"
	for i := range 50 {
		many += fmt.Sprintf("row %d,%d\n", i, i%3)
	}
	for _, c := range []struct {
		files             map[string]string
		file, split, want string
	}{
		{files("train.csv", "dev.csv", "test.csv"), "", "", "dev: dev.csv"},
		{files("train.csv", "validation.csv"), "", "", "validation: validation.csv"},
		{files("train.csv", "valid.csv"), "", "", "valid: valid.csv"},
		{files("train.csv", "val.csv", "test.csv"), "", "", "val: val.csv"},
		{files("train.csv", "val.csv", "test.csv"), "", "test", "test: test.csv"},
		{files("train.csv", "val.csv", "test.csv"), "", "dev", "val: val.csv"},
		{files("train.csv", "val.csv", "dev.csv"), "", "val", "val: val.csv"},
		{files("train.csv", "val.csv"), "", "train", "train: train.csv"},
		{files("test.csv"), "", "", "test: test.csv"},
		{files("train.csv", "other.csv"), "", "other", "other: other.csv"},
		{files("train.csv", "other.csv"), "other.csv", "", "other: other.csv"},
		{map[string]string{"train.csv": many}, "", "", "held out"},
		{files("train.csv"), "", "test", `expected a file "test" (.tsv, .csv, .jsonl, .json, .parquet), found none`},
		{files("train.csv"), "train.csv", "dev", `expected a folder with the split dev, found a file`},
	} {
		dir := write(t, c.files)
		if c.file != "" {
			dir += "/" + c.file
		}
		d, err := LoadSplit(spec(t, "text"), dir, c.split, Columns{})
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q %q: got error %v, expected %s", c.file, c.split, err, c.want)
			}
			continue
		}
		got := d.DevName
		if got != "held out" {
			got += ": " + d.Dev[0].Text
		} else if len(d.Dev) == 0 || len(d.Dev) > 15 {
			t.Errorf("%d of 50 rows are held out", len(d.Dev))
		}
		if got != c.want || d.Train != nil {
			t.Errorf("%q %q: got %s with %d to train on, expected %s", c.file, c.split, got, len(d.Train), c.want)
		}
	}
}
