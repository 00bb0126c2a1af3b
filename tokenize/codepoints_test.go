package tokenize

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"golang.org/x/text/unicode/norm"
)

// TestEveryCodePoint compares each component with the peer's on each code point
// by itself.
func TestEveryCodePoint(t *testing.T) {
	want := readGoldens(t).CodePoints
	check := func(name string, out func(dst []byte, r rune) []byte) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := sha256.New()
			var b []byte
			for r := rune(0); r < 0x110000; r++ {
				if r < 0xD800 || r >= 0xE000 {
					b = append(out(b, r), '\n')
				}
				if len(b) > 1<<16 {
					h.Write(b)
					b = b[:0]
				}
			}
			h.Write(b)
			if got := hex.EncodeToString(h.Sum(nil)); got != want[name] {
				t.Errorf("not what the peer makes of all code points: SHA-256 %s, expected %s", got, want[name])
			}
		})
	}
	for name, n := range map[string]normalizer{
		"BertNormalizer": bertNormalizer{true, true, true, true}, "Lowercase": lowercase{}, "StripAccents": stripAccents{},
		"NFC": normalForm{norm.NFC}, "NFD": normalForm{norm.NFD}, "NFKC": normalForm{norm.NFKC}, "NFKD": normalForm{norm.NFKD},
	} {
		var out []byte
		check(name, func(dst []byte, r rune) []byte {
			out = n.normalize(out[:0], []byte(string(r)))
			return append(dst, out...)
		})
	}
	joined := func(dst []byte, p *pieces, with string) []byte {
		from := 0
		for i, end := range p.ends {
			if i > 0 {
				dst = append(dst, with...)
			}
			dst = append(dst, p.buf[from:end]...)
			from = end
		}
		return dst
	}
	white := splitter{matchRunes(isSpace, false), "Removed", false}
	for name, pre := range map[string]preTokenizer{
		"BertPreTokenizer": bertPreTokenizer{}, "Whitespace": whitespace{}, "WhitespaceSplit": white,
		"Punctuation": splitter{matchRunes(isPunctuation, false), "Isolated", false},
		"Digits":      splitter{matchRunes(isNumeric, false), "Contiguous", false},
	} {
		var first, then pieces
		check(name, func(dst []byte, r rune) []byte {
			first.reset()
			then.reset()
			white.split([]byte("a"+string(r)+"a"), true, &first)
			from := 0
			for _, end := range first.ends {
				pre.split(first.buf[from:end], false, &then)
				from = end
			}
			return joined(dst, &then, "\x00")
		})
	}
	var p pieces
	check("ByteLevel", func(dst []byte, r rune) []byte {
		p.reset()
		c := string(r)
		byteLevel{false, true}.split([]byte("a"+c+"1"+c+"  "+c+"!"), true, &p)
		return joined(dst, &p, " ")
	})
}

func TestValid(t *testing.T) {
	// Python: bytes.decode(errors="replace").
	for in, want := range map[string]string{
		"a\xffb": "a\uFFFDb", "\xe2\x82": "\uFFFD", "\xe2\x82\xac": "€", "\xf0\x9f\x98x": "\uFFFDx", "\xed\xa0\x80": "\uFFFD\uFFFD\uFFFD",
		"\xc0\xaf": "\uFFFD\uFFFD", "\xf4\x90\x80\x80": "\uFFFD\uFFFD\uFFFD\uFFFD", "\xe0\x80": "\uFFFD\uFFFD", "\xf0\x90\x80": "\uFFFD", "\xe1\x80\xe2\x80\x80": "\uFFFD\u2000",
	} {
		if got := Valid(in); got != want {
			t.Errorf("Valid(%q) = %q, expected %q", in, got, want)
		}
	}
}

// The output of a pre-tokenizer that drops nothing is its input.
func FuzzGPT2Pattern(f *testing.F) {
	f.Add("it's  a\n\n test's\t 123 !!")
	f.Fuzz(func(t *testing.T, s string) {
		text := []byte(Valid(s))
		var p pieces
		splitter{splitGPT2().find, "Isolated", false}.split(text, true, &p)
		if !bytes.Equal(p.buf, text) {
			t.Errorf("%q became %q", text, p.buf)
		}
	})
}
