package tokenize

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

var preTokenizerKinds = kinds[preTokenizer]{
	"BertPreTokenizer": constant[preTokenizer](bertPreTokenizer{}),
	"ByteLevel":        parseByteLevel,
	"Digits":           parseDigits,
	"Metaspace":        func(c component) (preTokenizer, error) { return parseMetaspace(c) },
	"Punctuation":      parsePunctuation,
	"Split":            parseSplit,
	"Whitespace":       constant[preTokenizer](whitespace{}),
	"WhitespaceSplit":  constant[preTokenizer](splitter{matchRunes(isSpace, false), "Removed", false}),
}

// bertPreTokenizer splits at white space and around each punctuation mark.
type bertPreTokenizer struct{}

func (bertPreTokenizer) split(text []byte, _ bool, out *pieces) {
	for i := 0; i < len(text); {
		c, size := text[i], 1
		space, punctuation := false, false
		if c < utf8.RuneSelf {
			space, punctuation = c == ' ' || c >= '\t' && c <= '\r', isASCIIPunctuation(c)
		} else {
			var r rune
			r, size = utf8.DecodeRune(text[i:])
			space, punctuation = isSpace(r), classOf(r)&classPunctuation != 0
		}
		if space || punctuation {
			out.close()
		}
		if !space {
			out.buf = append(out.buf, text[i:i+size]...)
		}
		if punctuation {
			out.close()
		}
		i += size
	}
	out.close()
}

func isASCIIPunctuation(c byte) bool {
	return c >= '!' && c <= '/' || c >= ':' && c <= '@' || c >= '[' && c <= '`' || c >= '{' && c <= '~'
}

// whitespace yields the runs of word characters and the runs of all other
// characters but white space: \w+|[^\w\s]+.
type whitespace struct{}

func (whitespace) split(text []byte, _ bool, out *pieces) {
	last := ' '
	for i, r := range string(text) {
		kind := '.'
		if isSpace(r) {
			kind = ' '
		} else if classOf(r)&classWord != 0 {
			kind = 'w'
		}
		if kind != last {
			out.close()
		}
		if last = kind; kind != ' ' {
			out.buf = append(out.buf, text[i:i+utf8.RuneLen(r)]...)
		}
	}
	out.close()
}

// A matcher finds the first match in a text; lo is -1 when there is none.
type matcher func(text []byte) (lo, hi int)

// matchRunes matches single characters, or runs of them.
func matchRunes(is func(rune) bool, runs bool) matcher {
	return func(text []byte) (lo, hi int) {
		lo = bytes.IndexFunc(text, is)
		if lo < 0 {
			return -1, -1
		}
		_, n := utf8.DecodeRune(text[lo:])
		hi = lo + n
		for runs && hi < len(text) {
			r, n := utf8.DecodeRune(text[hi:])
			if !is(r) {
				break
			}
			hi += n
		}
		return lo, hi
	}
}

func matchString(s string) matcher {
	return func(text []byte) (lo, hi int) {
		if lo = bytes.Index(text, []byte(s)); lo < 0 || s == "" {
			return -1, -1
		}
		return lo, lo + len(s)
	}
}

// gpt2Pattern is GPT-2's split.
const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// splitGPT2 finds the matches of gpt2Pattern, which follow each other without a
// gap: every character begins one.
var splitGPT2 = sync.OnceValue(func() *regex {
	r, err := compileRegex(gpt2Pattern)
	if err != nil {
		panic(err)
	}
	return r
})

// byteLevel splits by GPT-2's pattern, if asked, and spells each byte by a
// printable character.
type byteLevel struct{ prefixSpace, pattern bool }

func parseByteLevel(c component) (preTokenizer, error) {
	o := struct {
		Type        string
		PrefixSpace bool `json:"add_prefix_space"`
		TrimOffsets bool `json:"trim_offsets"`
		UseRegex    bool `json:"use_regex"`
	}{PrefixSpace: true, UseRegex: true}
	err := c.options(&o)
	return byteLevel{o.PrefixSpace, o.UseRegex}, err
}

func (p byteLevel) split(text []byte, _ bool, out *pieces) {
	if p.prefixSpace && len(text) > 0 && text[0] != ' ' {
		text = slices.Concat([]byte{' '}, text)
	}
	gpt2 := splitGPT2()
	for len(text) > 0 {
		n := len(text)
		if p.pattern {
			n = gpt2.match(text, 0)
		}
		for _, b := range text[:n] {
			out.buf = append(out.buf, byteSpelling[b]...)
		}
		out.close()
		text = text[n:]
	}
}

// byteRune is GPT-2's alphabet: printable Latin-1 characters stand for
// themselves, the other bytes for the characters from U+0100 on.
var byteRune = func() (table [256]rune) {
	next := rune(256)
	for b := range table {
		r := rune(b)
		if r >= '!' && r <= '~' || r >= '¡' && r <= '¬' || r >= '®' && r <= 'ÿ' {
			table[b] = r
		} else {
			table[b] = next
			next++
		}
	}
	return table
}()

var byteSpelling = func() (table [256]string) {
	for b, r := range byteRune {
		table[b] = string(r)
	}
	return table
}()

// metaspace writes '▁' for spaces, puts one at the beginning, and splits before
// each.
type metaspace struct {
	replacement string
	prepend     string // "always", "first" or "never"
	cut         bool
}

// parseMetaspace reads the pre-tokenizer and decoder of this name, in the
// present form and in the older one with add_prefix_space.
func parseMetaspace(c component) (metaspace, error) {
	o := struct {
		Type        string
		Replacement string
		Prepend     string `json:"prepend_scheme"`
		Split       *bool
		PrefixSpace *bool  `json:"add_prefix_space"`
		StrRep      string `json:"str_rep"`
	}{Replacement: "▁", Prepend: "always"}
	if err := c.options(&o); err != nil {
		return metaspace{}, err
	}
	if o.PrefixSpace != nil && !*o.PrefixSpace {
		o.Prepend = "never"
	}
	if !slices.Contains([]string{"always", "first", "never"}, o.Prepend) {
		return metaspace{}, fmt.Errorf("%s.prepend_scheme: expected always, first or never, found %q", c.key, o.Prepend)
	}
	if utf8.RuneCountInString(o.Replacement) != 1 {
		return metaspace{}, fmt.Errorf("%s.replacement: expected one character, found %q", c.key, o.Replacement)
	}
	return metaspace{o.Replacement, o.Prepend, o.Split == nil || *o.Split}, nil
}

// checkFirst refuses a Metaspace that puts '▁' before the first piece only
// behind pre-tokenizers that may have removed the beginning of the input.
func checkFirst(all []preTokenizer) error {
	for i, p := range all {
		if m, ok := p.(metaspace); ok && m.prepend == "first" && i > 0 {
			return fmt.Errorf(`pre_tokenizer.pretokenizers[%d].prepend_scheme: expected "always" or "never" behind another pre-tokenizer, found "first"`, i)
		}
	}
	return nil
}

func (p metaspace) split(text []byte, start bool, out *pieces) {
	if (p.prepend == "always" || p.prepend == "first" && start) &&
		text[0] != ' ' && !bytes.HasPrefix(text, []byte(p.replacement)) {
		out.buf = append(out.buf, p.replacement...)
	}
	for len(text) > 0 {
		n := 1
		if text[0] != ' ' && !bytes.HasPrefix(text, []byte(p.replacement)) {
			out.buf = append(out.buf, text[0])
		} else {
			if text[0] != ' ' {
				n = len(p.replacement)
			}
			if p.cut {
				out.close()
			}
			out.buf = append(out.buf, p.replacement...)
		}
		text = text[n:]
	}
	out.close()
}

// splitter cuts the text at the matches; behaviour says what becomes of them.
type splitter struct {
	find      matcher
	behaviour string
	invert    bool // what lies between the matches counts as the matches
}

func parseSplit(c component) (preTokenizer, error) {
	var o struct {
		Type     string
		Pattern  pattern
		Behavior string
		Invert   bool
	}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	find, err := o.Pattern.matcher(c.key)
	if err != nil {
		return nil, err
	}
	return newSplitter(c, find, o.Behavior, o.Invert)
}

func parsePunctuation(c component) (preTokenizer, error) {
	o := struct{ Type, Behavior string }{Behavior: "Isolated"}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	return newSplitter(c, matchRunes(isPunctuation, false), o.Behavior, false)
}

func parseDigits(c component) (preTokenizer, error) {
	var o struct {
		Type       string
		Individual bool `json:"individual_digits"`
	}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	behaviour := "Contiguous"
	if o.Individual {
		behaviour = "Isolated"
	}
	return newSplitter(c, matchRunes(isNumeric, false), behaviour, false)
}

func newSplitter(c component, find matcher, behaviour string, invert bool) (preTokenizer, error) {
	if !slices.Contains(behaviours, behaviour) {
		return nil, fmt.Errorf("%s.behavior: expected one of %s, found %q", c.key, strings.Join(behaviours, ", "), behaviour)
	}
	return splitter{find, behaviour, invert}, nil
}

var behaviours = []string{"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}

func (p splitter) split(text []byte, _ bool, out *pieces) {
	previous := false // the stretch before was a match
	stretch := func(b []byte, match bool) {
		if len(b) == 0 {
			return
		}
		match = match != p.invert
		switch p.behaviour {
		case "Removed":
			out.close()
			if !match {
				out.add(b)
			}
		case "Isolated":
			out.close()
			out.add(b)
		case "MergedWithPrevious":
			if !match || previous {
				out.close()
			}
			out.buf = append(out.buf, b...)
		case "MergedWithNext":
			if match || !previous {
				out.close()
			}
			out.buf = append(out.buf, b...)
		case "Contiguous":
			if match != previous {
				out.close()
			}
			out.buf = append(out.buf, b...)
		}
		previous = match
	}
	for len(text) > 0 {
		lo, hi := p.find(text)
		if lo < 0 {
			break
		}
		stretch(text[:lo], false)
		stretch(text[lo:hi], true)
		text = text[hi:]
	}
	stretch(text, false)
	out.close()
}
