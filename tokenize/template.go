package tokenize

import (
	"encoding/json"
	"fmt"
	"slices"
)

// template says where the special tokens go around one text or two.
type template []slot

// slot is a special token, or the place of the first (part 1) or second (part
// 2) text.
type slot struct {
	part int
	id   int32
	kind int32 // the token type of everything in the slot
}

// added counts the special tokens.
func (t template) added() int {
	n := 0
	for _, s := range t {
		if s.part == 0 {
			n++
		}
	}
	return n
}

func (t template) apply(a, b []int32) Encoding {
	n := len(a) + len(b) + t.added()
	e := Encoding{IDs: make([]int32, 0, n), Types: make([]int32, n)}
	for _, s := range t {
		from := len(e.IDs)
		switch s.part {
		case 0:
			e.IDs = append(e.IDs, s.id)
		case 1:
			e.IDs = append(e.IDs, a...)
		case 2:
			e.IDs = append(e.IDs, b...)
		}
		if s.kind != 0 {
			fill(e.Types[from:len(e.IDs)], s.kind)
		}
	}
	return e
}

func fill(x []int32, v int32) {
	for i := range x {
		x[i] = v
	}
}

// has says whether the template holds the given text exactly once.
func (t template) has(part int) bool {
	once := func(s slot) bool { return s.part == part }
	i := slices.IndexFunc(t, once)
	return i >= 0 && !slices.ContainsFunc(t[i+1:], once)
}

// templates are those of one text and of a pair.
type templates struct{ single, pair template }

var postProcessorKinds = kinds[*templates]{
	"BertProcessing":     parseBertProcessing,
	"ByteLevel":          parseByteLevelProcessing,
	"RobertaProcessing":  parseRobertaProcessing,
	"TemplateProcessing": parseTemplates,
}

// oneTemplate takes the one that adds special tokens; without any, texts stay as
// they are.
func oneTemplate(all []*templates) (templates, error) {
	all = slices.DeleteFunc(all, func(t *templates) bool { return t == nil })
	switch len(all) {
	case 0:
		return templates{template{{part: 1}}, template{{part: 1}, {part: 2, kind: 1}}}, nil
	case 1:
		return *all[0], nil
	}
	return templates{}, fmt.Errorf("post_processor: expected one component that adds special tokens, found %d", len(all))
}

// parseByteLevelProcessing gives nil: it changes offsets only, which we do not
// keep.
func parseByteLevelProcessing(c component) (*templates, error) {
	_, err := parseByteLevel(c)
	return nil, err
}

func parseBertProcessing(c component) (*templates, error) { return parseAround(c, bertTemplates) }

func parseRobertaProcessing(c component) (*templates, error) { return parseAround(c, robertaTemplates) }

func parseAround(c component, around func(cls, sep int32) templates) (*templates, error) {
	var o struct {
		Type        string
		Sep, Cls    special
		TrimOffsets bool `json:"trim_offsets"`
		PrefixSpace bool `json:"add_prefix_space"`
	}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	t := around(o.Cls.id, o.Sep.id)
	return &t, nil
}

func parseTemplates(c component) (*templates, error) {
	var o struct {
		Type         string
		Single, Pair []templateItem
		Special      map[string]struct {
			ID     string
			IDs    []int32
			Tokens []string
		} `json:"special_tokens"`
	}
	if err := c.options(&o); err != nil {
		return nil, err
	}
	ids := func(token string) []int32 { return o.Special[token].IDs }
	single, err := newTemplate(o.Single, ids, 1)
	if err != nil {
		return nil, fmt.Errorf("%s.single: %w", c.key, err)
	}
	pair, err := newTemplate(o.Pair, ids, 2)
	if err != nil {
		return nil, fmt.Errorf("%s.pair: %w", c.key, err)
	}
	return &templates{single, pair}, nil
}

// special is ["[SEP]", 102].
type special struct {
	token string
	id    int32
}

func (s *special) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("expected a token and its id, found %s", b)
	}
	if err := json.Unmarshal(parts[0], &s.token); err != nil {
		return err
	}
	return json.Unmarshal(parts[1], &s.id)
}

// bertTemplates are [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
func bertTemplates(cls, sep int32) templates {
	single := template{{id: cls}, {part: 1}, {id: sep}}
	return templates{single, append(slices.Clone(single), slot{part: 2, kind: 1}, slot{id: sep, kind: 1})}
}

// robertaTemplates are <s> A </s> and <s> A </s></s> B </s>.
func robertaTemplates(cls, sep int32) templates {
	single := template{{id: cls}, {part: 1}, {id: sep}}
	return templates{single, append(slices.Clone(single), slot{id: sep}, slot{part: 2}, slot{id: sep})}
}

type templateItem struct {
	SpecialToken, Sequence *struct {
		ID     string `json:"id"`
		TypeID int32  `json:"type_id"`
	}
}

func newTemplate(items []templateItem, ids func(string) []int32, texts int) (template, error) {
	var t template
	for i, item := range items {
		switch {
		case item.Sequence != nil && item.SpecialToken == nil:
			part := map[string]int{"A": 1, "B": 2}[item.Sequence.ID]
			if part == 0 || part > texts {
				return nil, fmt.Errorf("expected the text A, or B in a pair, found %q", item.Sequence.ID)
			}
			t = append(t, slot{part: part, kind: item.Sequence.TypeID})
		case item.SpecialToken != nil && item.Sequence == nil:
			found := ids(item.SpecialToken.ID)
			if len(found) == 0 {
				return nil, fmt.Errorf("expected tokens that special_tokens lists, found %q", item.SpecialToken.ID)
			}
			for _, id := range found {
				t = append(t, slot{id: id, kind: item.SpecialToken.TypeID})
			}
		default:
			return nil, fmt.Errorf("item %d: expected a SpecialToken or a Sequence", i)
		}
	}
	for part := 1; part <= texts; part++ {
		if !t.has(part) {
			return nil, fmt.Errorf("expected each text once, found another template")
		}
	}
	return t, nil
}
