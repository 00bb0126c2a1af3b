package task

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// documentEnd is the line that divides a text file into documents.
const documentEnd = "<|endoftext|>"

// readDocuments reads the documents of a file for language modelling: a text
// file is one, or several divided by lines that hold <|endoftext|>; of a table
// each row's column text is one.
func readDocuments(d *Dataset, path string, f file, to *texts) error {
	fail := func(err error) error { return fmt.Errorf("%s: %w", path, err) }
	if strings.ToLower(filepath.Ext(path)) == ".txt" {
		all, err := io.ReadAll(io.LimitReader(f, maxData+1))
		if err != nil {
			return fail(err)
		}
		if len(all) > maxData {
			return fail(fmt.Errorf("expected at most %d bytes of text, found more", maxData))
		}
		for _, text := range splitLines(bytes.TrimPrefix(all, []byte("\uFEFF"))) {
			if err := to.addDocument(text); err != nil {
				return fail(err)
			}
		}
		return nil
	}
	t, err := openTable(path, f, d.Spec)
	if err != nil {
		return fail(err)
	}
	column := -1
	for _, name := range d.Spec.Text {
		if column = slices.Index(t.header, name); column >= 0 {
			break
		}
	}
	if column < 0 {
		return fail(fmt.Errorf("expected a column %s (or another that --text names), found %s", quoted(d.Spec.Text, " or "), quoted(t.header, ", ")))
	}
	for {
		line, cell, err := t.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fail(err)
		}
		text, ok := cell(column)
		if !ok {
			return fail(fmt.Errorf("%s %d: expected the column %q, found a row without it", t.unit, line, t.header[column]))
		}
		if err := to.addDocument(text); err != nil {
			return fail(err)
		}
	}
}

// addDocument adds a document unless it is blank.
func (t *texts) addDocument(text string) error {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return t.add(Example{Target: text})
}

// splitLines cuts a text at the lines that end a document.
func splitLines(text []byte) []string {
	var parts []string
	var part strings.Builder
	for line := range bytes.Lines(text) {
		if string(bytes.TrimSpace(line)) == documentEnd {
			parts = append(parts, part.String())
			part.Reset()
			continue
		}
		part.Write(line)
	}
	return append(parts, part.String())
}

// CutTails takes the last share of each document's text away and returns the
// beginnings and the ends: a held-out set where there are few documents.
func CutTails(documents []Example, share float64) (begin, end []Example) {
	for _, d := range documents {
		cut := len(d.Target) - int(share*float64(len(d.Target)))
		if i := strings.LastIndexByte(d.Target[:cut], '\n'); i > 0 {
			cut = i + 1 // between two lines
		}
		for cut < len(d.Target) && d.Target[cut]&0xC0 == 0x80 { // not within a character
			cut++
		}
		for _, part := range []struct {
			text string
			to   *[]Example
		}{{d.Target[:cut], &begin}, {d.Target[cut:], &end}} {
			if strings.TrimSpace(part.text) != "" {
				*part.to = append(*part.to, Example{Target: part.text})
			}
		}
	}
	return begin, end
}
