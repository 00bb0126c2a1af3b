package tokenize

import "unicode/utf8"

// Valid returns text with what is not UTF-8 replaced as Python's
// bytes.decode(errors="replace") does: each maximal part that could begin a
// character, or else each single byte, becomes one U+FFFD (Unicode Standard,
// section 3.9, "U+FFFD substitution of maximal subparts").
func Valid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string(appendValid(nil, text))
}

func appendValid(dst []byte, text string) []byte {
	if utf8.ValidString(text) {
		return append(dst, text...)
	}
	for i := 0; i < len(text); {
		if _, n := utf8.DecodeRuneInString(text[i:]); n > 1 || text[i] < utf8.RuneSelf {
			dst = append(dst, text[i:i+n]...)
			i += n
			continue
		}
		dst = append(dst, "\uFFFD"...)
		i += subpart(text[i:])
	}
	return dst
}

// subpart is the length of the longest beginning of an ill-formed text that
// could still have become a character, at least 1.
func subpart(text string) int {
	lo, hi := byte(0x80), byte(0xBF)
	need := 0
	switch c := text[0]; {
	case c >= 0xC2 && c <= 0xDF:
		need = 1
	case c >= 0xE0 && c <= 0xEF:
		need = 2
	case c >= 0xF0 && c <= 0xF4:
		need = 3
	}
	switch text[0] { // limits of the second byte
	case 0xE0:
		lo = 0xA0 // shorter forms exist
	case 0xED:
		hi = 0x9F // surrogates
	case 0xF0:
		lo = 0x90 // shorter forms exist
	case 0xF4:
		hi = 0x8F // above U+10FFFF
	}
	n := 1
	for n <= need && n < len(text) && text[n] >= lo && text[n] <= hi {
		lo, hi = 0x80, 0xBF
		n++
	}
	return n
}
