package metric

import (
	"regexp"
	"strings"
	"unicode"
)

// Tokenizer cuts a text into the words that are compared.
type Tokenizer func(text string) []string

// Fields cuts at white space: for texts that are tokenized already.
func Fields(text string) []string { return strings.Fields(text) }

// Lower is tok on texts in lower case.
func Lower(tok Tokenizer) Tokenizer {
	return func(text string) []string { return tok(strings.ToLower(text)) }
}

// clean13a are replacements made one after the other.
var clean13a = [][2]string{{"<skipped>", ""}, {"-\n", ""}, {"\n", " "}, {"&quot;", `"`}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}}

var rules13a = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile("[!-&(-+/:-@\\[-`{-~]"), " $0 "}, // ASCII punctuation but ' , - .
	{regexp.MustCompile(`([^0-9])([.,])`), "$1 $2 "},     // . and , unless a digit precedes
	{regexp.MustCompile(`([.,])([^0-9])`), " $1 $2"},     // . and , unless a digit follows
	{regexp.MustCompile(`([0-9])(-)`), "$1 $2 "},
}

// Tokenize13a is the tokenization of mteval-v13a, which is sacrebleu's default
// and, in lower case, that of the E2E challenge's scripts.
func Tokenize13a(text string) []string {
	text = strings.TrimSpace(text)
	for _, r := range clean13a {
		text = strings.ReplaceAll(text, r[0], r[1])
	}
	text = " " + text + " "
	for _, r := range rules13a {
		text = r.pattern.ReplaceAllString(text, r.by)
	}
	return strings.Fields(text)
}

// TokenizeWebNLG is what WebNLG 2017's and LoRA's scripts do to texts before
// they score them: lower case, and every character that is no letter, digit or
// underscore a word of its own.
func TokenizeWebNLG(text string) []string {
	var out []string
	start := -1
	text = strings.ToLower(text)
	for i, r := range text {
		if unicode.IsLetter(r) || unicode.IsNumber(r) || r == '_' {
			if start < 0 {
				start = i
			}
			continue
		}
		if start >= 0 {
			out = append(out, text[start:i])
			start = -1
		}
		if !unicode.IsSpace(r) {
			out = append(out, string(r))
		}
	}
	if start >= 0 {
		out = append(out, text[start:])
	}
	return out
}
