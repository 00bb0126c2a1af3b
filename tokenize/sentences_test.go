package tokenize

import (
	"fmt"
	"strings"
)

// The sentences of scripts/goldens/tokenization.py, from the same generator.

const sentenceCount = 5000

var words = strings.Fields(`the a of movie film good bad not never isn't don't I've we'll you're he'd I'm it's 'tis great awful
charming tedious unbelievable characterization performance director story plot 1984 3.14 10,000 2nd rock'n'roll
well-made self-indulgent e-mail www.example.org user@example.org C++ #tag @name $5.99 50% a_b (so) [so] {so}
"quoted" wait... what?! no!! -- / & + = < > [SEP] [MASK] [UNK] <s> </s> <mask> <|endoftext|> <tiny> Tiny straße
naïve café résumé fiancée Ünïcödé İstanbul ΣΑΣ ﬁne ½ Ⅷ ① 東京タワー 你好 안녕하세요 привет шалом مرحبا नमस्ते สวัสดี ▁under ##ing`)

var scripts = [][2]int{{0x20, 0x7E}, {0xA0, 0xFF}, {0x100, 0x24F}, {0x370, 0x3FF}, {0x400, 0x52F}, {0x531, 0x58A}, {0x5B0, 0x5EA},
	{0x600, 0x6FF}, {0x900, 0x97F}, {0xE01, 0xE5B}, {0x10A0, 0x10FF}, {0x1100, 0x11FF}, {0x1E00, 0x1FFF},
	{0x2000, 0x206F}, {0x20A0, 0x20CF}, {0x2100, 0x218F}, {0x3040, 0x30FF}, {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3},
	{0xFB00, 0xFB4F}, {0xFF00, 0xFFEF}, {0x1D400, 0x1D7FF}, {0x20000, 0x2A6DF}, {0x0, 0x1F}, {0x7F, 0x9F}}

var gaps = []string{" ", " ", " ", " ", " ", " ", "  ", "", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", ", ", "-"}

var broken = []string{"\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xed\xa0\x80", "\xc0\xaf", "\x80\x80", "\xf4\x90\x80\x80"}

// generator is Knuth's 64-bit linear congruential generator; the high bits are
// used.
type generator uint64

func (r *generator) below(n int) int {
	*r = *r*6364136223846793005 + 1442695040888963407
	return int((*r >> 33) % generator(n))
}

func (r *generator) word() string {
	var b strings.Builder
	switch kind := r.below(16); {
	case kind < 6:
		w := words[r.below(len(words))]
		if r.below(4) == 0 && strings.IndexFunc(w, func(c rune) bool { return c > 127 }) < 0 {
			return strings.ToUpper(w)
		}
		return w
	case kind == 6:
		return fmt.Sprint(r.below(1000000))
	case kind < 12:
		s := scripts[r.below(len(scripts))]
		for range 1 + r.below(8) {
			b.WriteRune(rune(s[0] + r.below(s[1]-s[0]+1)))
		}
	case kind == 12:
		for range 1 + r.below(5) {
			b.WriteRune(rune(0x61 + r.below(26)))
			b.WriteRune(rune(0x300 + r.below(0x70)))
		}
	case kind == 13:
		for range 1 + r.below(4) {
			b.WriteRune(rune(0x1F300 + r.below(0x350)))
			b.WriteString([]string{"", "\u200d", "\ufe0f", "\U0001f3fd"}[r.below(4)])
		}
	case kind == 14:
		letters, n := 26, 0
		if r.below(20) == 0 {
			letters, n = 3, 90+r.below(40)
		} else {
			n = 1 + r.below(14)
		}
		for range n {
			b.WriteRune(rune(0x61 + r.below(letters)))
		}
	default:
		for range 1 + r.below(4) {
			c := r.below(0x110000 - 0x800)
			if c >= 0xD800 {
				c += 0x800
			}
			b.WriteRune(rune(c))
		}
	}
	return b.String()
}

// sentences are not all valid UTF-8.
func sentences() []string {
	r := generator(2308)
	out := make([]string, sentenceCount)
	for i := range out {
		var s string
		for range 1 + r.below(14) {
			s += r.word()
			s += gaps[r.below(len(gaps))]
		}
		if r.below(16) == 0 {
			at := r.below(len(s) + 1)
			s = s[:at] + broken[r.below(len(broken))] + s[at:]
		}
		out[i] = s
	}
	return out
}
