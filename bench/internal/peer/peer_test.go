package peer

import (
	"strings"
	"testing"
)

func TestAsk(t *testing.T) {
	p, err := Start("sh", "-c", `read x; echo "{\"got\": $x}"; read x; echo '{"error": "no"}'; read x; echo nonsense; read x`)
	if err != nil {
		t.Skip("no shell")
	}
	type answer struct{ Got map[string]int }
	if a, err := Ask[answer](p, map[string]int{"n": 3}); err != nil || a.Got["n"] != 3 {
		t.Errorf("%v, %v", a, err)
	}
	for _, want := range []string{"peer: no", `found "nonsense`, "found none"} {
		if _, err := Ask[answer](p, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
