package main

import (
	"encoding/json"
	"strings"
	"testing"

	"mlpfusion/bench/internal/results"
)

// TestTable reads rows as they were kept before there was a limit, and a new one.
func TestTable(t *testing.T) {
	var rows []row
	if err := json.Unmarshal([]byte(`[
		{"name": "a", "peer": "b", "reach": "c", "ours": 1, "theirs": 4, "ratio": 4, "least": 3, "most": 5},
		{"name": "a", "peer": "b", "reach": "c", "ours": 1, "theirs": 4, "ratio": 4, "least": 3, "most": 5, "limit": 6}]`), &rows); err != nil {
		t.Fatal(err)
	}
	text := table(results.Machine{}, rows)
	for _, want := range []string{"| 3.00 … 5.00 | – | c |", "| 3.00 … 5.00 | 6.00 | c |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
