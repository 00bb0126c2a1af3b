package metric

import (
	"math/big"
	"testing"
)

func TestFinalNumber(t *testing.T) {
	for text, want := range map[string]string{
		"so 2 + 2 = <<2+2=4>>4\n#### 4":         "4",
		"#### 1,234.50":                         "2469/2",
		"####-3 dollars, not 5":                 "-3",
		"first #### 1 then #### 2":              "2",
		"the answer is $18.":                    "18",
		"12 apples and 3.5 pears":               "7/2",
		"costs .5":                              "1/2",
		"#### none, though 7 was there":         "7",
		"7 was there, but #### none":            "",
		"":                                      "",
		"no number, -":                          "",
		"#### 1e9":                              "1",
		"#### 99999999999999999999999999999999": "99999999999999999999999999999999",
	} {
		found := FinalNumber(text)
		if want == "" {
			if found != nil {
				t.Errorf("%q: found %v, want none", text, found)
			}
			continue
		}
		n, _ := new(big.Rat).SetString(want)
		if found == nil || found.Cmp(n) != 0 {
			t.Errorf("%q: found %v, want %s", text, found, want)
		}
	}
}

func TestExactMatch(t *testing.T) {
	for _, c := range []struct {
		written, reference string
		want               bool
	}{
		{"it is 18", "9*2=18\n#### 18", true},
		{"#### 18.0", "#### 18", true},
		{"#### 17", "#### 18", false},
		{"", "#### 18", false},
		{" Paris\n", "Paris", true},
		{"Paris.", "Paris", false},
		{"Paris 7", "Rome 7", false},
		{"####", "####", true},
	} {
		if found := ExactMatch(c.written, c.reference); found != c.want {
			t.Errorf("%q for %q: found %t", c.written, c.reference, found)
		}
	}
}
