package tokenize

import (
	"bytes"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

var normalizerKinds = kinds[normalizer]{
	"BertNormalizer": parseBertNormalizer,
	"Lowercase":      constant[normalizer](lowercase{}),
	"NFC":            constant[normalizer](normalForm{norm.NFC}),
	"NFD":            constant[normalizer](normalForm{norm.NFD}),
	"NFKC":           constant[normalizer](normalForm{norm.NFKC}),
	"NFKD":           constant[normalizer](normalForm{norm.NFKD}),
	"Precompiled":    parsePrecompiled,
	"Prepend":        parsePrepend,
	"Replace":        func(c component) (normalizer, error) { return parseReplace(c) },
	"Strip":          parseStrip,
	"StripAccents":   constant[normalizer](stripAccents{}),
}

// bertNormalizer is BERT's text cleaning: control characters out, white space
// to ' ', spaces around ideographs, accents off, lower case.
type bertNormalizer struct {
	clean, ideographs, strip, lower bool
}

func parseBertNormalizer(c component) (normalizer, error) {
	o := struct {
		Type         string
		CleanText    bool  `json:"clean_text"`
		Ideographs   bool  `json:"handle_chinese_chars"`
		StripAccents *bool `json:"strip_accents"`
		Lowercase    bool
	}{CleanText: true, Ideographs: true, Lowercase: true}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	strip := o.Lowercase
	if o.StripAccents != nil {
		strip = *o.StripAccents
	}
	return bertNormalizer{o.CleanText, o.Ideographs, strip, o.Lowercase}, nil
}

func (n bertNormalizer) normalize(dst, src []byte) []byte {
	dst, ascii := n.cleaned(dst, src)
	if ascii {
		if n.lower {
			lowerASCII(dst)
		}
		return dst
	}
	if n.strip {
		clean := bytes.Clone(dst)
		dst = removeClass(normalForm{norm.NFD}.normalize(dst[:0], clean), classNonSpacing)
	}
	if n.lower {
		dst = lowercase{}.normalize(nil, dst)
	}
	return dst
}

// cleaned does the first two steps and says whether the result is all ASCII.
func (n bertNormalizer) cleaned(dst, src []byte) (_ []byte, ascii bool) {
	ascii = true
	for i := 0; i < len(src); {
		if c := src[i]; c < utf8.RuneSelf {
			i++
			switch {
			case c >= ' ' && c != 0x7F || !n.clean:
				dst = append(dst, c)
			case c == '\t' || c == '\n' || c == '\r':
				dst = append(dst, ' ')
			}
			continue
		}
		r, size := utf8.DecodeRune(src[i:])
		char := src[i : i+size]
		i += size
		cl := classOf(r)
		switch {
		case n.clean && cl&classControl != 0:
		case n.clean && isSpace(r):
			dst = append(dst, ' ')
		case n.ideographs && cl&classIdeograph != 0:
			dst = append(append(append(dst, ' '), char...), ' ')
			ascii = false
		default:
			dst = append(dst, char...)
			ascii = false
		}
	}
	return dst, ascii
}

func lowerASCII(b []byte) {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
}

// removeClass removes the characters of a class in place.
func removeClass(b []byte, c class) []byte {
	kept := b[:0]
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r < utf8.RuneSelf || classOf(r)&c == 0 {
			kept = append(kept, b[i:i+n]...)
		}
		i += n
	}
	return kept
}

// lowercase lowers each character by itself (no final sigma).
type lowercase struct{}

func (lowercase) normalize(dst, src []byte) []byte {
	for _, r := range string(src) {
		switch {
		case r >= 'A' && r <= 'Z':
			dst = append(dst, byte(r)+'a'-'A')
		case r < utf8.RuneSelf:
			dst = append(dst, byte(r))
		case r == 'İ':
			dst = append(dst, "i̇"...)
		default:
			dst = utf8.AppendRune(dst, toLower(r))
		}
	}
	return dst
}

// stripAccents removes all marks; it does not decompose.
type stripAccents struct{}

func (stripAccents) normalize(dst, src []byte) []byte {
	return removeClass(append(dst, src...), classMark)
}

// normalForm is one of Unicode's four. Characters whose mapping is newer than
// the peers' tables stay as they are.
type normalForm struct{ form norm.Form }

func (n normalForm) normalize(dst, src []byte) []byte {
	start := 0
	for i := 0; i < len(src); {
		if src[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRune(src[i:])
		if classOf(r)&classKept != 0 {
			dst = n.form.Append(dst, src[start:i]...)
			dst = append(dst, src[i:i+size]...)
			start = i + size
		}
		i += size
	}
	return n.form.Append(dst, src[start:]...)
}

// replace puts with in the place of every match.
type replace struct {
	find matcher
	with string
}

func parseReplace(c component) (replace, error) {
	var o struct {
		Type    string
		Pattern pattern
		Content string
	}
	if err := c.options(&o); err != nil {
		return replace{}, err
	}
	find, err := o.Pattern.matcher(c.key)
	if err != nil {
		return replace{}, err
	}
	least := 1 // bytes of a match
	if o.Pattern.String != nil {
		least = max(least, len(*o.Pattern.String))
	}
	return replace{find, o.Content}, c.grows(float64(len(o.Content)) / float64(least))
}

func (n replace) normalize(dst, src []byte) []byte {
	for len(src) > 0 {
		lo, hi := n.find(src)
		if lo < 0 {
			break
		}
		dst = append(append(dst, src[:lo]...), n.with...)
		src = src[hi:]
	}
	return append(dst, src...)
}

// prepend puts a string before a text that is not empty.
type prepend struct{ text string }

func parsePrepend(c component) (normalizer, error) {
	var o struct{ Type, Prepend string }
	err := c.options(&o)
	return prepend{o.Prepend}, err
}

func (n prepend) normalize(dst, src []byte) []byte {
	if len(src) > 0 {
		dst = append(dst, n.text...)
	}
	return append(dst, src...)
}

// strip removes white space at the ends.
type strip struct{ left, right bool }

func parseStrip(c component) (normalizer, error) {
	var o struct {
		Type  string
		Left  bool `json:"strip_left"`
		Right bool `json:"strip_right"`
	}
	err := c.options(&o)
	return strip{o.Left, o.Right}, err
}

func (n strip) normalize(dst, src []byte) []byte {
	if n.left {
		src = bytes.TrimLeftFunc(src, isSpace)
	}
	if n.right {
		src = bytes.TrimRightFunc(src, isSpace)
	}
	return append(dst, src...)
}
