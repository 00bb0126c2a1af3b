package main

import "testing"

func TestParseShard(t *testing.T) {
	for s, want := range map[string][2]int{"1/4": {1, 4}, "4/4": {4, 4}, "0/4": {4, 4}, "0/1": {1, 1}} {
		if i, n, err := parseShard(s); err != nil || [2]int{i, n} != want {
			t.Errorf("%s: expected %v, found %d/%d, %v", s, want, i, n, err)
		}
	}
	for _, s := range []string{"", "1", "5/4", "-1/4", "0/0", "1/2 x", "a/b", "1/"} {
		if i, n, err := parseShard(s); err == nil {
			t.Errorf("%q: expected a refusal, found %d/%d", s, i, n)
		}
	}
}
