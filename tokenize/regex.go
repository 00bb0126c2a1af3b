package tokenize

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A regex is a pattern of tokenizer.json: alternatives, repeats, sets,
// properties and lookahead as Oniguruma, the peers' engine, reads them. Go's
// own package has no lookahead and other versions of Unicode. What is not read
// here is refused by name; see docs/decisions/tokenizers.md.
type regex struct {
	match step
	first [256]bool // the bytes that a match may begin with
}

// A step matches what remains of a pattern at a place of the text and returns
// the end of the whole match, or -1.
type step func(text []byte, at int) int

// An expr is a part of a pattern. compile puts it before the rest of the
// pattern. begin adds the bytes that it may begin with and tells whether it may
// match the empty string.
type expr interface {
	compile(rest step) step
	begin(first *[256]bool) (empty bool)
}

// maxPattern bounds a pattern's bytes: each becomes a function.
const maxPattern = 1 << 16

// compileRegex reads a pattern that matches at least one character.
func compileRegex(pattern string) (*regex, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("expected a regular expression of at most %d bytes, found %d", maxPattern, len(pattern))
	}
	p := regexParser{rest: pattern}
	e, err := p.alternatives()
	if err == nil && p.rest != "" {
		err = fmt.Errorf("expected the end, found %.40q", p.rest)
	}
	if err != nil {
		return nil, fmt.Errorf("expected a regular expression of sets, properties, repeats, groups and lookahead, found %.120q: %w", pattern, err)
	}
	r := &regex{match: e.compile(func(_ []byte, at int) int { return at })}
	if e.begin(&r.first) {
		return nil, fmt.Errorf("expected a regular expression that matches at least one character, found %.120q", pattern)
	}
	return r, nil
}

// find is the first match in text, lo -1 when there is none.
func (r *regex) find(text []byte) (lo, hi int) {
	for at := range text {
		if r.first[text[at]] {
			if end := r.match(text, at); end >= 0 {
				return at, end
			}
		}
	}
	return -1, -1
}

// firstLead is the least byte that a character beyond ASCII begins with.
const firstLead = 0xC2

// one is a single character of a set.
type one struct {
	ascii  [utf8.RuneSelf]bool
	others func(rune) bool // beyond ASCII; nil: none
	lead   []byte          // what the others may begin with; nil: any byte beyond ASCII
}

func newOne(in func(rune) bool) *one {
	o := &one{others: in}
	for c := range o.ascii {
		o.ascii[c] = in(rune(c))
	}
	return o
}

// literal is one of a few characters.
func literal(chars ...rune) *one {
	o := newOne(func(r rune) bool { return slices.Contains(chars, r) })
	o.lead = []byte{}
	for _, r := range chars {
		if r >= utf8.RuneSelf {
			o.lead = append(o.lead, string(r)[0])
		}
	}
	if len(o.lead) == 0 {
		o.others = nil
	}
	return o
}

// size is the length of the character at a place of the text, 0 when it is not
// of the set.
func (o *one) size(text []byte, at int) int {
	if at == len(text) {
		return 0
	}
	if c := text[at]; c < utf8.RuneSelf {
		if o.ascii[c] {
			return 1
		}
		return 0
	}
	if o.others != nil {
		if r, n := utf8.DecodeRune(text[at:]); o.others(r) {
			return n
		}
	}
	return 0
}

func (o *one) compile(rest step) step {
	return func(text []byte, at int) int {
		n := o.size(text, at)
		if n == 0 {
			return -1
		}
		return rest(text, at+n)
	}
}

func (o *one) begin(first *[256]bool) bool {
	for c, in := range o.ascii {
		first[c] = first[c] || in
	}
	if o.lead != nil {
		for _, b := range o.lead {
			first[b] = true
		}
	} else if o.others != nil {
		for b := firstLead; b < len(first); b++ {
			first[b] = true
		}
	}
	return false
}

// sequence is one expression behind another.
type sequence []expr

func (s sequence) compile(rest step) step {
	for _, e := range slices.Backward(s) {
		rest = e.compile(rest)
	}
	return rest
}

func (s sequence) begin(first *[256]bool) bool {
	for _, e := range s {
		if !e.begin(first) {
			return false
		}
	}
	return true
}

// either is the first of some alternatives with which the rest matches.
type either []expr

func (e either) compile(rest step) step {
	// by are the alternatives that may begin with a byte, in their order; the
	// last are those at the end of the text.
	var by [257][]step
	for _, x := range e {
		var first [256]bool
		empty := x.begin(&first)
		match := x.compile(rest)
		for b, in := range first {
			if in || empty {
				by[b] = append(by[b], match)
			}
		}
		if empty {
			by[256] = append(by[256], match)
		}
	}
	return func(text []byte, at int) int {
		b := 256
		if at < len(text) {
			b = int(text[at])
		}
		for _, match := range by[b] {
			if end := match(text, at); end >= 0 {
				return end
			}
		}
		return -1
	}
}

func (e either) begin(first *[256]bool) bool {
	empty := false
	for _, x := range e {
		empty = x.begin(first) || empty
	}
	return empty
}

// repeat is min to max characters of a set, as many as let the rest match, or
// as few with lazy; possessive takes all there are and gives none back.
type repeat struct {
	*one
	min, max         int
	lazy, possessive bool
}

func (r repeat) compile(rest step) step {
	if r.lazy {
		return func(text []byte, at int) int {
			for n := 0; ; n++ {
				if n >= r.min {
					if end := rest(text, at); end >= 0 {
						return end
					}
				}
				size := r.size(text, at)
				if n == r.max || size == 0 {
					return -1
				}
				at += size
			}
		}
	}
	return func(text []byte, at int) int {
		n := 0
		for n < r.max {
			if at < len(text) && text[at] < utf8.RuneSelf { // size, spelled out for its speed
				if !r.ascii[text[at]] {
					break
				}
				at++
				n++
				continue
			}
			size := r.size(text, at)
			if size == 0 {
				break
			}
			at += size
			n++
		}
		for ; n >= r.min; n-- {
			end := rest(text, at)
			if end >= 0 || n == r.min || r.possessive {
				return end
			}
			_, size := utf8.DecodeLastRune(text[:at])
			at -= size
		}
		return -1
	}
}

func (r repeat) begin(first *[256]bool) bool {
	r.one.begin(first)
	return r.min == 0
}

// maybe is an expression or, where the rest does not match behind it, nothing.
type maybe struct{ expr }

func (m maybe) compile(rest step) step {
	match := m.expr.compile(rest)
	return func(text []byte, at int) int {
		if end := match(text, at); end >= 0 {
			return end
		}
		return rest(text, at)
	}
}

func (m maybe) begin(first *[256]bool) bool {
	m.expr.begin(first)
	return true
}

// ahead tells that an expression follows, or with not that it does not, and
// takes nothing of it.
type ahead struct {
	expr
	not bool
}

func (a ahead) compile(rest step) step {
	match := a.expr.compile(func(_ []byte, at int) int { return at })
	return func(text []byte, at int) int {
		if (match(text, at) >= 0) == a.not {
			return -1
		}
		return rest(text, at)
	}
}

func (a ahead) begin(*[256]bool) bool { return true }

// regexParser reads a pattern from left to right.
type regexParser struct {
	rest  string
	fold  bool // within (?i:…)
	depth int  // of groups and sets
}

// maxDepth bounds groups within groups.
const maxDepth = 50

func (p *regexParser) take(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	p.rest = rest
	return ok
}

func (p *regexParser) rune() (rune, error) {
	if p.rest == "" {
		return 0, fmt.Errorf("expected a character, found the end")
	}
	r, n := utf8.DecodeRuneInString(p.rest)
	p.rest = p.rest[n:]
	return r, nil
}

func (p *regexParser) alternatives() (expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("expected at most %d groups in each other", maxDepth)
	}
	defer func() { p.depth-- }()
	var all either
	for {
		one, err := p.sequence()
		if err != nil {
			return nil, err
		}
		if all = append(all, one); !p.take("|") {
			break
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func (p *regexParser) sequence() (expr, error) {
	var all sequence
	for p.rest != "" && p.rest[0] != '|' && p.rest[0] != ')' {
		e, err := p.item()
		if err != nil {
			return nil, err
		}
		if e, err = p.repeated(e); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	if p.fold {
		if err := foldsAlone(all); err != nil {
			return nil, err
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

// foldsAlone refuses, without regard to case, letters in a row that also have
// one character in their place, as ß for ss.
func foldsAlone(all sequence) error {
	for i := range max(0, len(all)-1) {
		a, ok := all[i].(*one)
		b, ok2 := all[i+1].(*one)
		for _, pair := range []string{"ss", "st", "ff", "fi", "fl"} {
			if ok && ok2 && a.ascii[pair[0]] && b.ascii[pair[1]] {
				return fmt.Errorf("expected no (?i:%s), which also stands for one character", pair)
			}
		}
	}
	return nil
}

// item reads a character, a set or a group.
func (p *regexParser) item() (expr, error) {
	switch {
	case p.take("("):
		return p.group()
	case p.take("["):
		in, err := p.set()
		if err != nil {
			return nil, err
		}
		return newOne(in), nil
	case p.take("."):
		return newOne(func(r rune) bool { return r != '\n' }), nil
	case p.take(`\`):
		in, r, err := p.escape()
		if err != nil {
			return nil, err
		}
		if in != nil {
			return newOne(in), nil
		}
		return p.literal(r)
	}
	r, err := p.rune()
	if err == nil && strings.ContainsRune("^$*+?{", r) {
		err = fmt.Errorf("expected no anchor and nothing to repeat, found %q", r)
	}
	if err != nil {
		return nil, err
	}
	return p.literal(r)
}

func (p *regexParser) literal(r rune) (expr, error) {
	if !p.fold {
		return literal(r), nil
	}
	if r >= utf8.RuneSelf {
		return nil, fmt.Errorf("expected (?i:…) around ASCII, found %q", r)
	}
	return literal(orbit(r)...), nil
}

// orbit are the characters that differ from r in case only.
func orbit(r rune) []rune {
	all := []rune{r}
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		all = append(all, f)
	}
	return all
}

// folded is the set that holds, within (?i:…), with a character all that differ
// from it in case only.
func (p *regexParser) folded(in func(rune) bool) func(rune) bool {
	if !p.fold {
		return in
	}
	return func(r rune) bool { return slices.ContainsFunc(orbit(r), in) }
}

// group reads what follows an opening bracket.
func (p *regexParser) group() (expr, error) {
	fold, wrap := p.fold, func(e expr) expr { return e }
	switch {
	case p.take("?:"):
	case p.take("?i:"):
		p.fold = true
	case p.take("?="):
		wrap = func(e expr) expr { return ahead{e, false} }
	case p.take("?!"):
		wrap = func(e expr) expr { return ahead{e, true} }
	case strings.HasPrefix(p.rest, "?"):
		return nil, fmt.Errorf("expected a group (…), (?:…), (?i:…), (?=…) or (?!…), found %.4q", "("+p.rest)
	}
	e, err := p.alternatives()
	p.fold = fold
	if err == nil && !p.take(")") {
		err = fmt.Errorf("expected a closing bracket, found %q", p.rest)
	}
	if err != nil {
		return nil, err
	}
	return wrap(e), nil
}

// repeated reads a quantifier, if there is one, behind e.
func (p *regexParser) repeated(e expr) (expr, error) {
	r := repeat{max: math.MaxInt}
	counted := false
	switch {
	case p.take("?"):
		r.max = 1
	case p.take("*"):
	case p.take("+"):
		r.min = 1
	case p.take("{"):
		counts, rest, ok := strings.Cut(p.rest, "}")
		low, high, ranged := strings.Cut(counts, ",")
		var err, err2 error
		if low != "" {
			r.min, err = strconv.Atoi(low)
		}
		switch {
		case !ranged:
			r.max = r.min
		case high != "":
			r.max, err2 = strconv.Atoi(high)
		}
		if !ok || err != nil || err2 != nil || counts == "" || counts == "," || r.min < 0 || r.max < r.min {
			return nil, fmt.Errorf("expected a repeat as {2}, {1,3} or {2,}, found %.12q", "{"+p.rest)
		}
		p.rest, counted = rest, true
	default:
		return e, nil
	}
	switch {
	case counted && p.rest != "" && strings.ContainsRune("?+*{", rune(p.rest[0])):
		return nil, fmt.Errorf("expected nothing to repeat a repeat, found %.4q", p.rest)
	case p.take("?"):
		r.lazy = true
	case p.take("+"):
		r.possessive = true
	}
	if p.rest != "" && strings.ContainsRune("?+*{", rune(p.rest[0])) {
		return nil, fmt.Errorf("expected nothing to repeat a repeat, found %.4q", p.rest)
	}
	if o, ok := e.(*one); ok {
		r.one = o
		return r, nil
	}
	if r.min != 0 || r.max != 1 || r.lazy || r.possessive {
		return nil, fmt.Errorf("expected repeats of single characters and sets, and ? behind a group, found another repeat of a group")
	}
	return maybe{e}, nil
}

// set reads what follows an opening square bracket.
func (p *regexParser) set() (func(rune) bool, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("expected at most %d sets in each other", maxDepth)
	}
	defer func() { p.depth-- }()
	not := p.take("^")
	var parts []func(rune) bool
	for start := true; start || !p.take("]"); start = false {
		switch {
		case strings.HasPrefix(p.rest, "[:"), strings.HasPrefix(p.rest, "&&"), start && strings.HasPrefix(p.rest, "]"):
			return nil, fmt.Errorf("expected a set of characters, ranges, properties and sets, found %.8q", "["+p.rest)
		case p.take("["):
			in, err := p.set()
			if err != nil {
				return nil, err
			}
			parts = append(parts, in)
			continue
		}
		in, from, err := p.member()
		if err != nil {
			return nil, err
		}
		to := from
		if in == nil && strings.HasPrefix(p.rest, "-") && !strings.HasPrefix(p.rest, "-]") {
			p.rest = p.rest[1:]
			var class func(rune) bool
			if class, to, err = p.member(); err != nil {
				return nil, err
			}
			if class != nil || to < from {
				return nil, fmt.Errorf("expected a range of characters, found one from %q to another", from)
			}
		}
		if in == nil {
			in = p.folded(func(r rune) bool { return r >= from && r <= to })
		}
		parts = append(parts, in)
	}
	return func(r rune) bool {
		for _, in := range parts {
			if in(r) {
				return !not
			}
		}
		return not
	}, nil
}

// member reads a character of a set, or an escaped class.
func (p *regexParser) member() (in func(rune) bool, r rune, err error) {
	if p.take(`\`) {
		return p.escape()
	}
	r, err = p.rune()
	return nil, r, err
}

// escape reads what follows a backslash: a class, or else a character.
func (p *regexParser) escape() (in func(rune) bool, r rune, err error) {
	if r, err = p.rune(); err != nil {
		return nil, 0, err
	}
	not := func(in func(rune) bool) func(rune) bool { return func(r rune) bool { return !in(r) } }
	switch r {
	case 's':
		return isSpace, 0, nil
	case 'S':
		return not(isSpace), 0, nil
	case 'd':
		return inCategories("Nd"), 0, nil
	case 'D':
		return not(inCategories("Nd")), 0, nil
	case 'p', 'P':
		name, rest, ok := strings.Cut(strings.TrimPrefix(p.rest, "{"), "}")
		if !ok || !strings.HasPrefix(p.rest, "{") {
			return nil, 0, fmt.Errorf("expected a property as \\p{L}, found %.8q", `\p`+p.rest)
		}
		p.rest = rest
		name, inverse := strings.CutPrefix(name, "^")
		if in = inCategories(name); in == nil {
			return nil, 0, fmt.Errorf("expected a general category as L or Lu, found %q", name)
		}
		if inverse != (r == 'P') {
			in = not(in)
		}
		return in, 0, nil
	case 'n':
		return nil, '\n', nil
	case 'r':
		return nil, '\r', nil
	case 't':
		return nil, '\t', nil
	case 'f':
		return nil, '\f', nil
	case 'v':
		return nil, '\v', nil
	}
	if r >= utf8.RuneSelf || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z' {
		return nil, 0, fmt.Errorf(`expected \s, \d, \p{…}, their inverses or an escaped sign, found \%c`, r)
	}
	return nil, r, nil
}
