package tokenize

import (
	"bytes"
	"unicode/utf8"
)

// addedToken is a string that is cut out of the text as one token, before the
// model sees the rest.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only between non-word characters
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // takes the white space after it
	Normalized bool   `json:"normalized"`  // looked for in the normalized text
	Special    bool   `json:"special"`     // left out by Decode
}

// addedTokens finds added tokens in a text, the leftmost longest first.
type addedTokens struct {
	find   *trie // nil: no tokens
	first  [256]bool
	tokens []addedToken // by the ids of find
}

func (a *addedTokens) add(t addedToken, content string) error {
	if content == "" {
		return nil
	}
	if a.find == nil {
		a.find = newTrie()
	}
	a.first[content[0]] = true
	a.tokens = append(a.tokens, t)
	return a.find.insert(content, int32(len(a.tokens)-1))
}

// split calls part for each stretch of text with id -1, and for each token
// found with its id; at is where the stretch begins.
func (a *addedTokens) split(text []byte, part func(text []byte, id int32, at int)) {
	if a.find == nil {
		if len(text) > 0 {
			part(text, -1, 0)
		}
		return
	}
	done := 0 // text before this is dealt with
	for i := 0; i < len(text); {
		if !a.first[text[i]] {
			i++
			continue
		}
		k, n := a.find.longest(0, text[i:])
		if n == 0 {
			i++
			continue
		}
		start, stop := i, i+n
		i = stop
		t := &a.tokens[k]
		if t.SingleWord && (endsWithWord(text[:start]) || startsWithWord(text[stop:])) {
			continue
		}
		if t.LStrip {
			start = max(len(bytes.TrimRightFunc(text[:start], isSpace)), done)
		}
		if t.RStrip {
			stop = len(text) - len(bytes.TrimLeftFunc(text[stop:], isSpace))
		}
		if done < start {
			part(text[done:start], -1, done)
		}
		part(text[start:stop], t.ID, start)
		done = stop
	}
	if done < len(text) {
		part(text[done:], -1, done)
	}
}

func startsWithWord(text []byte) bool {
	r, n := utf8.DecodeRune(text)
	return n > 0 && classOf(r)&classWord != 0
}

func endsWithWord(text []byte) bool {
	r, n := utf8.DecodeLastRune(text)
	return n > 0 && classOf(r)&classWord != 0
}
