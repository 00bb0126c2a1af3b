package chat

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// The beginning and the end of the assistant's words in a rendered text: two of
// Unicode's noncharacters, which no text has.
const (
	spanBegin = "\uFDD0"
	spanEnd   = "\uFDD1"
)

// plain rewrites a template so that white space is as it stands: the signs of {%- -%}
// and Jinja's trim_blocks and lstrip_blocks, which transformers turns on, are applied,
// and text becomes expressions, which no such rule touches any more. The tags
// generation and endgeneration become the marks of a span.
//
// Jinja's lexer (jinja2/lexer.py) is the definition: a tag of statements or a comment
// takes the blanks before it when nothing else stands before it on its line, and a
// line's end right behind it; a minus takes all white space on its side, a plus leaves
// it there.
func plain(source string) (string, error) {
	source = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(source)
	source = strings.TrimSuffix(source, "\n")
	var out strings.Builder
	text := func(s string) {
		if s != "" {
			out.WriteString("{{" + quote(s) + "}}")
		}
	}
	atLineStart := true
	for pos := 0; pos < len(source); {
		begin := opening(source, pos)
		if begin < 0 {
			text(source[pos:])
			break
		}
		t, err := readTag(source, begin)
		if err != nil {
			return "", err
		}
		before := source[pos:begin]
		text(before[:len(before)-t.strips(before, atLineStart)])
		pos = t.end
		switch {
		case t.kind == '#':
			out.WriteString(strings.Repeat("{{''\n}}", strings.Count(t.inner, "\n")))
		case t.kind == '%' && t.word() == "raw":
			end, raw, err := readRaw(source, &t)
			if err != nil {
				return "", err
			}
			text(raw)
			t.end, pos = end, end
		case t.kind == '%' && t.word() == "generation":
			out.WriteString(`{{"` + spanBegin + `"}}`)
		case t.kind == '%' && t.word() == "endgeneration":
			out.WriteString(`{{"` + spanEnd + `"}}`)
		default:
			inner, call := limited(&t)
			out.WriteString("{" + string(t.kind) + " " + inner + " " + string(closing[t.kind]) + "}")
			if call != "" {
				out.WriteString("{{" + call + "()}}")
			}
		}
		atLineStart = source[pos-1] == '\n'
	}
	return out.String(), nil
}

// limited is what a tag says, with what is to be called behind it, so that the template ends
// (see Template.functions).
func limited(t *tag) (inner, call string) {
	if t.kind != '%' {
		return t.inner, ""
	}
	rest := strings.TrimLeftFunc(t.inner, unicode.IsSpace)
	end := strings.IndexFunc(rest, unicode.IsSpace)
	if end < 0 {
		return t.inner, ""
	}
	switch word := rest[:end]; word {
	case "for":
		return t.inner, roundCall
	case "macro":
		return t.inner, macroCall
	case "set":
		if name, value, ok := strings.Cut(rest[end:], "="); ok {
			return "set" + name + "= " + namedCall + "(" + value + ")", ""
		}
	}
	return t.inner, ""
}

var closing = map[byte]byte{'{': '}', '%': '%', '#': '#'}

// opening is where the next tag begins, or -1.
func opening(source string, from int) int {
	for i := from; i+1 < len(source); i++ {
		if source[i] == '{' && closing[source[i+1]] != 0 {
			return i
		}
	}
	return -1
}

// tag is one of {{ }}, {% %} and {# #}.
type tag struct {
	kind  byte   // its second character
	left  byte   // '-', '+' or 0
	inner string // without these signs
	end   int    // behind it, and behind the white space that it takes
}

// quote writes a string as a literal of the library's. Line ends stay as they are, so
// that errors name the right line.
func quote(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }

// escapes are those of Python's strings that stand for one character.
var escapes = map[byte]string{'n': "\n", 't': "\t", 'r': "\r", '\\': `\`, '\'': "'", '"': `"`, 'a': "\a", 'b': "\b", 'f': "\f", 'v': "\v", '\n': ""}

// hexEscapes are those of this many digits.
var hexEscapes = map[byte]int{'x': 2, 'u': 4, 'U': 8}

// unescape is what a literal of Python's stands for. The library knows few escapes.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}
		i++
		if plain, ok := escapes[s[i]]; ok {
			out.WriteString(plain)
			continue
		}
		if n := hexEscapes[s[i]]; n > 0 && i+n < len(s) {
			if code, err := strconv.ParseUint(s[i+1:i+1+n], 16, 32); err == nil && code <= unicode.MaxRune {
				out.WriteRune(rune(code))
				i += n
				continue
			}
		}
		out.WriteString(s[i-1 : i+1])
	}
	return out.String()
}

// word is what the tag says if it is a word alone.
func (t *tag) word() string { return strings.TrimSpace(t.inner) }

// strips is how many bytes at the end of the text before the tag go.
func (t *tag) strips(before string, atLineStart bool) int {
	if t.left == '-' {
		return len(before) - len(strings.TrimRightFunc(before, unicode.IsSpace))
	}
	if t.left == '+' || t.kind == '{' {
		return 0
	}
	line := strings.LastIndexByte(before, '\n') + 1
	if (line > 0 || atLineStart) && strings.TrimSpace(before[line:]) == "" {
		return len(before) - line
	}
	return 0
}

// readTag reads the tag that begins at a place. In strings and within brackets nothing
// ends it.
func readTag(source string, begin int) (tag, error) {
	t := tag{kind: source[begin+1]}
	pos := begin + 2
	if pos < len(source) && (source[pos] == '-' || source[pos] == '+') {
		t.left = source[pos]
		pos++
	}
	var inner strings.Builder
	depth := 0
	for ; pos < len(source); pos++ {
		c := source[pos]
		if t.kind != '#' && (c == '\'' || c == '"') {
			end := pos + 1
			for end < len(source) && source[end] != c {
				if source[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(source) {
				break
			}
			inner.WriteString(quote(unescape(source[pos+1 : end])))
			pos = end
			continue
		}
		if depth == 0 {
			if end, ok := t.closes(source, pos); ok {
				t.inner, t.end = inner.String(), end
				return t, nil
			}
		}
		inner.WriteByte(c)
		switch {
		case t.kind == '#':
		case strings.IndexByte("([{", c) >= 0:
			depth++
		case strings.IndexByte(")]}", c) >= 0:
			depth--
			inner.WriteByte(' ') // so that two of them end no tag
		}
	}
	return t, fmt.Errorf("line %d: expected the end of a tag, found none", 1+strings.Count(source[:begin], "\n"))
}

// closes tells whether the tag ends at a place, and where what follows begins.
func (t *tag) closes(source string, pos int) (end int, ok bool) {
	right := byte(0)
	if c := source[pos]; c == '-' || c == '+' && t.kind != '{' {
		right = c
		pos++
	}
	if pos+1 >= len(source) || source[pos] != closing[t.kind] || source[pos+1] != '}' {
		return 0, false
	}
	end = pos + 2
	switch {
	case right == '-':
		end += len(source[end:]) - len(strings.TrimLeftFunc(source[end:], unicode.IsSpace))
	case right == 0 && t.kind != '{' && strings.HasPrefix(source[end:], "\n"):
		end++
	}
	return end, true
}

// readRaw returns the text between {% raw %} and {% endraw %}, and where what follows
// begins.
func readRaw(source string, begin *tag) (end int, raw string, err error) {
	from := begin.end
	if source[from-1] == '\n' && source[from-2] == '}' {
		from-- // raw takes no line's end
	}
	for pos := from; ; pos++ {
		if pos = opening(source, pos); pos < 0 {
			return 0, "", fmt.Errorf("line %d: expected endraw, found none", 1+strings.Count(source[:begin.end], "\n"))
		}
		t, err := readTag(source, pos)
		if err != nil || t.kind != '%' || t.word() != "endraw" {
			continue
		}
		raw = source[from:pos]
		return t.end, raw[:len(raw)-t.strips(raw, source[from-1] == '\n')], nil
	}
}
