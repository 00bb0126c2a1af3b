// Package choice words what is said of a name that is none of those known, and of
// a JSON value of another type.
package choice

import (
	"fmt"
	"strings"
)

// Unknown is the error for a name that is none of the words: it lists them and,
// where one is a slip of the finger away, asks for that.
func Unknown(found string, words []string) error {
	hint := ""
	if w := Nearest(found, words); w != "" {
		hint = fmt.Sprintf(": did you mean %s?", w)
	}
	return fmt.Errorf("expected one of %s, found %q%s", strings.Join(words, ", "), found, hint)
}

// Nearest returns the word that was probably meant: the first of those with the
// fewest letters to change, which are at most a third of it; "" if there is none.
func Nearest(found string, words []string) string {
	best, least := "", 0
	for _, w := range words {
		d := distance([]rune(strings.ToLower(found)), []rune(strings.ToLower(w)))
		if 3*d <= max(3, len(w)) && d < len(w) && (best == "" || d < least) {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to insert, leave out, change or swap with their
// neighbour that make b of a (optimal string alignment).
func distance(a, b []rune) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range b {
		d[0][j+1] = j + 1
	}
	for i := range a {
		for j := range b {
			change := d[i][j]
			if a[i] != b[j] {
				change++
			}
			least := min(d[i][j+1]+1, d[i+1][j]+1, change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				least = min(least, d[i-1][j-1]+1)
			}
			d[i+1][j+1] = least
		}
	}
	return d[len(a)][len(b)]
}
