package tokenize

import (
	"fmt"
	"strconv"
	"strings"
)

// decoder turns the tokens of Decode into others; at the end they are joined.
type decoder func(tokens []string) []string

var decoderKinds = kinds[decoder]{
	"ByteFallback": constant[decoder](decodeBytes),
	"ByteLevel":    parseByteLevelDecoder,
	"Fuse":         constant[decoder](decodeFuse),
	"Metaspace":    parseMetaspaceDecoder,
	"Replace":      parseReplaceDecoder,
	"Strip":        parseStripDecoder,
	"WordPiece":    parseWordPieceDecoder,
}

func join(tokens []string, spaced bool) string {
	if spaced {
		return strings.Join(tokens, " ")
	}
	return strings.Join(tokens, "")
}

// decodeWordPiece puts spaces between words and, with cleanup, takes those of
// English punctuation and contractions away.
func decodeWordPiece(prefix string, cleanup bool) decoder {
	steps := []string{" .", ".", " ?", "?", " !", "!", " ,", ",", " ' ", "'", " n't", "n't",
		" 'm", "'m", " do not", " don't", " 's", "'s", " 've", "'ve", " 're", "'re"}
	return func(tokens []string) []string {
		for i, t := range tokens {
			if i > 0 {
				if rest, ok := strings.CutPrefix(t, prefix); ok {
					t = rest
				} else {
					t = " " + t
				}
			}
			for k := 0; cleanup && k < len(steps); k += 2 {
				t = strings.ReplaceAll(t, steps[k], steps[k+1])
			}
			tokens[i] = t
		}
		return tokens
	}
}

func parseWordPieceDecoder(c component) (decoder, error) {
	o := struct {
		Type, Prefix string
		Cleanup      bool
	}{Prefix: "##", Cleanup: true}
	err := c.options(&o)
	return decodeWordPiece(o.Prefix, o.Cleanup), err
}

var runeByte = func() map[rune]byte {
	m := make(map[rune]byte, 256)
	for b, r := range byteRune {
		m[r] = byte(b)
	}
	return m
}()

// decodeByteLevel reads GPT-2's alphabet back to bytes.
func decodeByteLevel(tokens []string) []string {
	var text []byte
	for _, t := range tokens {
		from := len(text)
		for _, r := range t {
			b, ok := runeByte[r]
			if !ok { // not of the alphabet: an added token, taken as it is
				text = append(text[:from], t...)
				break
			}
			text = append(text, b)
		}
	}
	return []string{Valid(string(text))}
}

// parseByteLevelDecoder reads the options of the pre-tokenizer of the same name,
// none of which counts here.
func parseByteLevelDecoder(c component) (decoder, error) {
	_, err := parseByteLevel(c)
	return decodeByteLevel, err
}

func decodeMetaspace(replacement, prepend string) decoder {
	return func(tokens []string) []string {
		for i, t := range tokens {
			space := " "
			if i == 0 && prepend != "never" {
				space = ""
			}
			tokens[i] = strings.ReplaceAll(t, replacement, space)
		}
		return tokens
	}
}

func parseMetaspaceDecoder(c component) (decoder, error) {
	m, err := parseMetaspace(c)
	return decodeMetaspace(m.replacement, m.prepend), err
}

func decodeReplace(n replace) decoder {
	return func(tokens []string) []string {
		for i, t := range tokens {
			tokens[i] = string(n.normalize(nil, []byte(t)))
		}
		return tokens
	}
}

func parseReplaceDecoder(c component) (decoder, error) {
	r, err := parseReplace(c)
	return decodeReplace(r), err
}

func decodeFuse(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// decodeStrip takes up to start copies of content from the left of each token
// and up to stop from the right.
func decodeStrip(content string, start, stop int) decoder {
	return func(tokens []string) []string {
		for i, t := range tokens {
			for k := 0; k < start && strings.HasPrefix(t, content); k++ {
				t = t[len(content):]
			}
			for k := 0; k < stop && strings.HasSuffix(t, content); k++ {
				t = t[:len(t)-len(content)]
			}
			tokens[i] = t
		}
		return tokens
	}
}

func parseStripDecoder(c component) (decoder, error) {
	var o struct {
		Type, Content string
		Start, Stop   int
	}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	if o.Content == "" {
		return nil, fmt.Errorf("%s.content: expected a character, found none", c.key)
	}
	return decodeStrip(o.Content, o.Start, o.Stop), nil
}

// decodeBytes reads runs of <0x00> … <0xFF> back to text; a run that is not
// UTF-8 gives one U+FFFD for each byte.
func decodeBytes(tokens []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if len(run) == 0 {
			return
		}
		if s := string(run); Valid(s) == s {
			out = append(out, s)
		} else {
			out = append(out, strings.Repeat("\uFFFD", len(run)))
		}
		run = run[:0]
	}
	for _, t := range tokens {
		if len(t) == 6 && strings.HasPrefix(t, "<0x") && t[5] == '>' {
			if b, err := strconv.ParseUint(t[3:5], 16, 8); err == nil {
				run = append(run, byte(b))
				continue
			}
		}
		flush()
		out = append(out, t)
	}
	flush()
	return out
}
