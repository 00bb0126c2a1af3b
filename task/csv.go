package task

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
)

// csvReader reads comma-separated cells (RFC 4180). A quotation mark within a cell
// that does not begin with one is a character as any other, as for pandas.
type csvReader struct {
	in   *bufio.Reader
	line int // of the character that is read next
}

// read returns a row's cells and the line it begins in; rows of nothing are left
// out.
func (c *csvReader) read() (cells []string, line int, err error) {
	line = c.line
	var cell []byte
	cellDone := func() {
		cells = append(cells, string(cell))
		cell = cell[:0]
	}
	began, closed := false, false // a cell's first character is read; its quotation mark is closed
	for size := 0; ; size++ {
		b, err := c.in.ReadByte()
		if errors.Is(err, io.EOF) && (began || len(cells) > 0) {
			cellDone()
			return cells, line, nil
		}
		if err != nil {
			return nil, line, err
		}
		if size > maxLine {
			return nil, line, fmt.Errorf("line %d: expected a row of at most %d bytes, found more", line, maxLine)
		}
		if b == '\r' {
			if next, err := c.in.Peek(1); err == nil && next[0] == '\n' {
				continue
			}
		}
		switch {
		case b == '\n':
			c.line++
			if !began && len(cells) == 0 {
				line, size = c.line, 0
				continue
			}
			cellDone()
			return cells, line, nil
		case b == ',':
			cellDone()
			began, closed = false, false
		case closed:
			return nil, line, fmt.Errorf("line %d: expected a comma or the end of the line behind a closing quotation mark, found %q", c.line, b)
		case b == '"' && !began:
			began, closed = true, true
			if cell, err = c.quoted(cell); err != nil {
				return nil, line, err
			}
		default:
			began = true
			cell = append(cell, b)
		}
	}
}

// quoted appends what stands between two quotation marks, the first of which is
// read.
func (c *csvReader) quoted(cell []byte) ([]byte, error) {
	line := c.line
	for size := 0; ; size++ {
		b, err := c.in.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("line %d: expected a closing quotation mark, found the end of the file", line)
		}
		if err != nil {
			return nil, err
		}
		if size > maxLine {
			return nil, fmt.Errorf("line %d: expected a closing quotation mark within %d bytes, found none", line, maxLine)
		}
		switch b {
		case '"':
			if next, err := c.in.Peek(1); err != nil || next[0] != '"' {
				return cell, nil
			}
			if _, err := c.in.Discard(1); err != nil {
				return nil, err
			}
		case '\n':
			c.line++
		}
		cell = append(cell, b)
	}
}

// openCSV reads comma-separated files with a header.
func openCSV(r io.Reader) (*table, error) {
	b := bufio.NewReader(r)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\uFEFF" {
		if _, err := b.Discard(3); err != nil {
			return nil, err
		}
	}
	c := csvReader{b, 1}
	header, _, err := c.read()
	if err == io.EOF {
		err = errEmpty
	}
	if err != nil {
		return nil, err
	}
	return &table{unit: "line", header: slices.Clone(header), next: func() (int, func(int) (string, bool), error) {
		cells, line, err := c.read()
		if err == nil {
			err = noSurplus(line, cells, header)
		}
		return line, at(cells), err
	}}, nil
}

// noSurplus refuses a row of more cells than the header has.
func noSurplus(line int, cells, header []string) error {
	if header != nil && len(cells) > len(header) {
		return fmt.Errorf("line %d: expected %d cells as in the header, found %d", line, len(header), len(cells))
	}
	return nil
}

// at looks cells up; those beyond the last are not there.
func at(cells []string) func(int) (string, bool) {
	return func(i int) (string, bool) {
		if i >= len(cells) {
			return "", false
		}
		return cells[i], true
	}
}
