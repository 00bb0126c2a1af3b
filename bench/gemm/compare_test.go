package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"mlpfusion/bench/internal/results"
)

// TestKinds has each kind known to measure, and no row in the place of another.
func TestKinds(t *testing.T) {
	var keys []string
	for _, kind := range kinds {
		if _, _, ok := precision(kind.prec); !ok {
			t.Errorf("precision %q is unknown", kind.prec)
		}
		for _, s := range kind.shapes {
			keys = append(keys, row{request: request{Shape: [3]int{s.m, s.n, s.k}, Trans: s.trans, Prec: kind.prec}}.key())
		}
	}
	all := len(keys)
	slices.Sort(keys)
	if n := len(slices.Compact(keys)); n != all {
		t.Errorf("%d keys of %d rows", n, all)
	}
}

// TestTable explains the kinds that it has rows of.
func TestTable(t *testing.T) {
	var rows []row
	if err := json.Unmarshal([]byte(`[{"shape": [25, 768, 3072], "trans": "nt", "threads": 1, "prec": "bf16", "ours": 1, "peer": 2, "ratio": 0.5, "best": 0.5, "fast": 1, "peak": 118},
		{"shape": [25, 768, 3072], "trans": "nt", "threads": 1, "prec": "bf16 packed", "ours": 1, "peer": 2, "ratio": 0.5, "best": 0.5, "fast": 1, "peak": 0}]`), &rows); err != nil {
		t.Fatal(err)
	}
	text := table(results.Machine{}, rows)
	for _, want := range []string{"\n- bf16: ", "\n- bf16 packed: ", "| 0.50 | 118 |", "| 0.50 | – |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "- fp32") {
		t.Errorf("explains what it has no row of:\n%s", text)
	}
}
