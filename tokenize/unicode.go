package tokenize

import (
	"strings"
	"sync"
	"unicode"
)

// The tokenizers that we repeat use several versions of Unicode at once, so the
// character classes are our own tables (tables.go), read off those tokenizers
// for every code point.
type class uint16

const (
	classControl     class = 1 << iota // removed by BertNormalizer: Cc, Cf, Co, Cn in part
	classPunctuation                   // P and ASCII symbols
	classNonSpacing                    // Mn, removed by BertNormalizer's strip_accents
	classMark                          // M, removed by StripAccents
	classNumeric                       // Rust's char::is_numeric, of the Digits pre-tokenizer
	classWord                          // \w
	classIdeograph                     // surrounded by spaces by BertNormalizer
	classKept                          // left alone by the normal forms though newer Unicode maps it
)

// categoryNames are the general categories, in the order of their numbers.
var categoryNames = strings.Fields("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn")

// categoryOf is the number of every code point's general category.
var categoryOf = sync.OnceValue(func() *[unicode.MaxRune + 1]uint8 {
	all := new([unicode.MaxRune + 1]uint8)
	for i, run := range categoryRuns {
		end := len(all)
		if i+1 < len(categoryRuns) {
			end = int(categoryRuns[i+1] >> 8)
		}
		for c := int(run >> 8); c < end; c++ {
			all[c] = uint8(run)
		}
	}
	return all
})

// inCategories is the set of the characters of a general category, such as Lu,
// or of all whose names begin so, such as L; nil when there is none.
func inCategories(name string) func(rune) bool {
	var members uint32
	for i, c := range categoryNames {
		if c == name || len(name) == 1 && strings.HasPrefix(c, name) {
			members |= 1 << i
		}
	}
	if members == 0 {
		return nil
	}
	category := categoryOf()
	return func(r rune) bool { return members>>category[r]&1 != 0 }
}

// classPages is a two-level table: code point >> 8, then its low byte.
var classPages = sync.OnceValue(func() *[unicode.MaxRune>>8 + 1]*[256]class {
	pages := new([unicode.MaxRune>>8 + 1]*[256]class)
	for _, t := range append(classTables, keptTable) {
		for i := 0; i < len(t.ranges); i += 2 {
			for r := t.ranges[i]; r <= t.ranges[i+1]; r++ {
				p := &pages[r>>8]
				if *p == nil {
					*p = new([256]class)
				}
				(*p)[r&0xFF] |= t.class
			}
		}
	}
	return pages
})

func classOf(r rune) class {
	if p := classPages()[r>>8]; p != nil {
		return p[r&0xFF]
	}
	return 0
}

// isSpace is Unicode's White_Space.
func isSpace(r rune) bool { return unicode.IsSpace(r) }

func isPunctuation(r rune) bool { return classOf(r)&classPunctuation != 0 }
func isNumeric(r rune) bool     { return classOf(r)&classNumeric != 0 }

// toLower lowers one character, but for U+0130, whose lower case has two.
func toLower(r rune) rune {
	if r >= newerLower[0] {
		for i := 0; i < len(newerLower); i += 3 {
			if r >= newerLower[i] && r <= newerLower[i+1] {
				return r + newerLower[i+2]
			}
		}
	}
	return unicode.ToLower(r)
}

// keptTable lists the characters whose compatibility mappings are of Unicode
// 12.1 to 15; the peers' normal forms know only those before.
var keptTable = classTable{classKept, []rune{
	0x32FF, 0x32FF, 0xA7F2, 0xA7F4, 0xAB69, 0xAB69, 0x10781, 0x10785, 0x10787, 0x107B0, 0x107B2, 0x107BA,
	0x11938, 0x11938, 0x1E030, 0x1E06D, 0x1F16C, 0x1F16C, 0x1FBF0, 0x1FBF9,
}}

// newerLower lists first, last and distance of the lower cases that are newer
// than Unicode 15, in order.
var newerLower = []rune{
	0x1C89, 0x1C89, 1,
	0xA7CB, 0xA7CB, 0x264 - 0xA7CB,
	0xA7CC, 0xA7CC, 1,
	0xA7CE, 0xA7CE, 1,
	0xA7D2, 0xA7D2, 1,
	0xA7D4, 0xA7D4, 1,
	0xA7DA, 0xA7DA, 1,
	0xA7DC, 0xA7DC, 0x19B - 0xA7DC,
	0x10D50, 0x10D65, 0x20,
	0x16EA0, 0x16EB8, 0x1B,
}

// classTable lists the first and last code points of a class's ranges.
type classTable struct {
	class  class
	ranges []rune
}
