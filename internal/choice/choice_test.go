package choice

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"width", "ratio", "sst2", "mnli", "calibrated", "lr", "fusion"}
	for _, c := range []struct{ found, want string }{
		{"widht", "width"},           // neighbours swapped
		{"with", "width"},            // one left out
		{"rratio", "ratio"},          // one too many
		{"MNLI", "mnli"},             // case does not count
		{"sst", "sst2"},              // in three letters one
		{"callibratd", "calibrated"}, // in ten two
		{"foo", ""},
		{"x", ""}, // of two letters, both would have to change
		{"", ""},
	} {
		if got := Nearest(c.found, words); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.found, got, c.want)
		}
	}
}

func TestUnknown(t *testing.T) {
	for found, want := range map[string]string{
		"adan": `expected one of adam, sgd, found "adan": did you mean adam?`,
		"lion": `expected one of adam, sgd, found "lion"`,
	} {
		if got := Unknown(found, []string{"adam", "sgd"}).Error(); got != want {
			t.Errorf("found %s, want %s", got, want)
		}
	}
}
