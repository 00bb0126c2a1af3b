package chat

import (
	"strings"
	"testing"
	"time"
)

// TestEndless: a template that would not end, or fills the memory, ends with a sentence.
func TestEndless(t *testing.T) {
	for source, want := range map[string]string{
		"{% for i in range(10 ** 9) %}x{% endfor %}":                                                          "range: expected at most 100000 numbers",
		"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}":                    "at most 500000 rounds of loops",
		"{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}":                                                  "at most 50000 calls of macros",
		"{% set x = namespace(s='ab') %}{%for i in range(64)%}{% set x.s = x.s ~ x.s %}{% endfor %}{{ x.s }}": "at most 67108864 bytes of text",
		"{% for i in range(1, 9, 0) %}{% endfor %}":                                                           "range: expected a step other than 0",
		"{{ strftime_now('%Q') }}":                                                                            `strftime_now: expected %Y, %m, %d, %B and the like, found "%Q"`,
		"{{ strftime_now('%') }}":                                                                             `found "%"`,
	} {
		tmpl, err := New(source, "made up", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = tmpl.Render([]Message{{Role: "user", Content: "hello"}}, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// TestDate: a template is told the time that it is given, as Python writes it.
func TestDate(t *testing.T) {
	tmpl, err := New("{{ strftime_now('%d %b %Y, %-d. %B %y 100%% %H:%M:%S %I %p %A %a %j') }}", "made up", nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.Now = time.Date(2026, 3, 5, 14, 7, 9, 0, time.UTC)
	text, err := tmpl.Render([]Message{{Role: "user", Content: "hello"}}, false)
	// python3 -c "import datetime as d; print(d.datetime(2026, 3, 5, 14, 7, 9).strftime('%d %b …'))"
	if want := "05 Mar 2026, 5. March 26 100% 14:07:09 02 PM Thursday Thu 064"; err != nil || text != want || !tmpl.Dated {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
}
