package task

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// The two forms in which WebNLG 2017 is published. Of both the modified triples
// are the prompt, as subject : property : object joined by |, and the texts
// marked as good the targets, as in LoRA's code (Hu et al. 2021).

// triple is subject, property and object.
type triple [3]string

// addWebNLG adds an entry with its texts.
func (t *texts) addWebNLG(category string, triples []triple, lexes []lex) error {
	if len(triples) == 0 {
		return errors.New("expected at least one modified triple, found none")
	}
	parts := make([]string, len(triples))
	for i, x := range triples {
		parts[i] = strings.Join(x[:], " : ")
	}
	prompt := strings.Join(parts, " | ")
	t.entries++
	for _, l := range lexes {
		text := strings.TrimSpace(l.Text)
		if text == "" {
			return errors.New("expected a text, found an empty one")
		}
		if l.Comment != "good" && l.Comment != "" {
			t.skipped++
			continue
		}
		if err := t.add(Example{Text: prompt, Target: text, Category: category, Entry: t.entries}); err != nil {
			return err
		}
	}
	return nil
}

// lex is one text of an entry and what the annotators said of it.
type lex struct {
	Comment string `xml:"comment,attr" json:"comment"`
	Text    string `xml:",chardata" json:"lex"`
}

// readWebNLG reads a file of either form, by its ending.
func readWebNLG(_ *Dataset, path string, f file, to *texts) error {
	var err error
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".xml":
		err = readWebNLGXML(f, to)
	case ".json":
		err = readWebNLGJSON(f, to)
	default:
		err = fmt.Errorf("expected a .xml or .json file, found the ending %q", ext)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// readWebNLGXML reads the challenge's own form: benchmark, entries, entry.
func readWebNLGXML(r io.Reader, to *texts) error {
	d := xml.NewDecoder(bufio.NewReader(r))
	at := func() string {
		line, _ := d.InputPos()
		return fmt.Sprintf("line %d", line)
	}
	root := true
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: expected XML: %w", at(), err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if name := start.Name.Local; root && name != "benchmark" {
			return fmt.Errorf("%s: expected the element benchmark of WebNLG's XML, found %.60q", at(), name)
		}
		root = false
		if start.Name.Local != "entry" {
			continue
		}
		var e struct {
			Category string `xml:"category,attr"`
			ID       string `xml:"eid,attr"`
			Modified []struct {
				Triples []string `xml:"mtriple"`
			} `xml:"modifiedtripleset"`
			Texts []lex `xml:"lex"`
		}
		line := at()
		if err := d.DecodeElement(&e, &start); err != nil {
			return fmt.Errorf("%s: expected XML: %w", at(), err)
		}
		fail := func(err error) error { return fmt.Errorf("%s: entry %.60q: %w", line, e.ID, err) }
		if len(e.Modified) != 1 {
			return fail(fmt.Errorf("expected one modifiedtripleset, found %d", len(e.Modified)))
		}
		triples := make([]triple, len(e.Modified[0].Triples))
		for i, text := range e.Modified[0].Triples {
			parts := strings.Split(strings.TrimSpace(text), " | ")
			if len(parts) != len(triples[i]) {
				return fail(fmt.Errorf("mtriple: expected subject | property | object, found %.100q", text))
			}
			copy(triples[i][:], parts)
		}
		if err := to.addWebNLG(e.Category, triples, e.Texts); err != nil {
			return fail(err)
		}
	}
}

// readWebNLGJSON reads LoRA's form, {"entries": [{"1": {…}}, …]}.
func readWebNLGJSON(r io.Reader, to *texts) error {
	d := json.NewDecoder(bufio.NewReader(r))
	broken := func(err error) error {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("byte %d: expected JSON: %w", d.InputOffset(), err)
	}
	expect := func(want any, what string) error {
		token, err := d.Token()
		if err != nil {
			return broken(err)
		}
		if token != want {
			return fmt.Errorf("byte %d: expected %s, found %.60q", d.InputOffset(), what, fmt.Sprint(token))
		}
		return nil
	}
	if err := expect(json.Delim('{'), `an object {"entries": […]}`); err != nil {
		return err
	}
	if err := expect("entries", `the key "entries"`); err != nil {
		return err
	}
	if err := expect(json.Delim('['), "a list of entries"); err != nil {
		return err
	}
	for n := 1; d.More(); n++ {
		var numbered map[string]struct {
			Category string `json:"category"`
			Texts    []lex  `json:"lexicalisations"`
			Modified []struct {
				Subject  *string `json:"subject"`
				Property *string `json:"property"`
				Object   *string `json:"object"`
			} `json:"modifiedtripleset"`
		}
		if err := d.Decode(&numbered); err != nil {
			return fmt.Errorf("entry %d: %w", n, broken(err))
		}
		if len(numbered) != 1 {
			return fmt.Errorf("entry %d: expected an object of one key, its number, found %d keys", n, len(numbered))
		}
		for _, e := range numbered {
			triples := make([]triple, len(e.Modified))
			for i, m := range e.Modified {
				if m.Subject == nil || m.Property == nil || m.Object == nil {
					return fmt.Errorf("entry %d: modifiedtripleset: expected subject, property and object, found triple %d without one", n, i+1)
				}
				triples[i] = triple{*m.Subject, *m.Property, *m.Object}
			}
			if err := to.addWebNLG(e.Category, triples, e.Texts); err != nil {
				return fmt.Errorf("entry %d: %w", n, err)
			}
		}
	}
	if err := expect(json.Delim(']'), "the end of the entries"); err != nil {
		return err
	}
	return expect(json.Delim('}'), "the end of the object")
}
