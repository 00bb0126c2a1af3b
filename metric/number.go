package metric

import (
	"math/big"
	"regexp"
	"strings"
)

// numbers are those of a text, with separators of thousands.
var numbers = regexp.MustCompile(`-?[0-9][0-9,]*(\.[0-9]+)?|-?\.[0-9]+`)

// finalMark goes before the result of a worked answer (GSM8K, Cobbe et al. 2021).
const finalMark = "####"

// FinalNumber is the number that a worked answer comes to: the first one behind the last
// ####, or without that mark the last one of the text; nil if there is none.
func FinalNumber(text string) *big.Rat {
	var found string
	if i := strings.LastIndex(text, finalMark); i >= 0 {
		found = numbers.FindString(text[i:])
	} else if all := numbers.FindAllString(text, -1); len(all) > 0 {
		found = all[len(all)-1]
	}
	n, ok := new(big.Rat).SetString(strings.ReplaceAll(found, ",", ""))
	if !ok {
		return nil
	}
	return n
}

// ExactMatch tells whether an answer is right: where the reference has a result behind
// ####, by the final number, otherwise by the text without white space around.
func ExactMatch(written, reference string) bool {
	want := FinalNumber(reference)
	if want == nil || !strings.Contains(reference, finalMark) {
		return strings.TrimSpace(written) == strings.TrimSpace(reference)
	}
	found := FinalNumber(written)
	return found != nil && found.Cmp(want) == 0
}
