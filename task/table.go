package task

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// file is what the readers need of an open file.
type file interface {
	io.Reader
	io.ReaderAt
	io.Seeker
}

// maxLine bounds one line of a text file, in bytes.
const maxLine = 16 << 20

// openTable opens a file by the ending of its name.
func openTable(path string, f file, spec Spec) (*table, error) {
	name := strings.ToLower(filepath.Base(path))
	switch ext := filepath.Ext(name); {
	case ext == ".tsv", strings.HasPrefix(name, "sts-") && ext == ".csv":
		return openTSV(f, spec)
	case ext == ".csv":
		return openCSV(f)
	case ext == ".jsonl", ext == ".json":
		return openJSONL(f)
	case ext == ".parquet":
		return openParquet(f)
	default:
		return nil, fmt.Errorf("expected a .tsv, .csv, .jsonl, .json or .parquet file, found the ending %q", ext)
	}
}

// lines returns a function that yields the lines that are not blank, without
// their ends and the first without a byte order mark.
func lines(r io.Reader) func() (n int, line []byte, err error) {
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, maxLine)
	n := 0
	return func() (int, []byte, error) {
		for scan.Scan() {
			n++
			line := scan.Bytes()
			if n == 1 {
				line = bytes.TrimPrefix(line, []byte("\uFEFF"))
			}
			if len(bytes.TrimSpace(line)) > 0 {
				return n, line, nil
			}
		}
		if err := scan.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("line %d: expected at most %d bytes, found more", n+1, maxLine)
			}
			return n, nil, err
		}
		return n, nil, io.EOF
	}
}

// openTSV reads GLUE's tab-separated files, in which a quotation mark is a
// character as any other. The first line is the header, unless the task has
// files without one and the line names none of its columns.
func openTSV(r io.Reader, spec Spec) (*table, error) {
	next := lines(r)
	n, line, err := next()
	if err == io.EOF {
		return nil, fmt.Errorf("expected at least one row, found an empty data set")
	}
	if err != nil {
		return nil, err
	}
	t := &table{unit: "line"}
	first := strings.Split(string(line), "\t")
	named := slices.ContainsFunc(first, func(cell string) bool { return slices.Contains(spec.Text, cell) })
	held := false
	if named || spec.Plain == nil || len(first) < spec.Plain.Columns {
		t.header = first
	} else {
		held = true
	}
	t.next = func() (int, func(int) (string, bool), error) {
		cells := first
		if !held {
			if n, line, err = next(); err != nil {
				return 0, nil, err
			}
			cells = strings.Split(string(line), "\t")
		}
		held = false
		return n, func(i int) (string, bool) {
			if i >= len(cells) {
				return "", false
			}
			return cells[i], true
		}, nil
	}
	return t, nil
}

// openCSV reads comma-separated files with a header (RFC 4180).
func openCSV(r io.Reader) (*table, error) {
	b := bufio.NewReader(r)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\uFEFF" {
		if _, err := b.Discard(3); err != nil {
			return nil, err
		}
	}
	c := csv.NewReader(b)
	c.FieldsPerRecord = -1
	header, err := c.Read()
	if err == io.EOF {
		return nil, fmt.Errorf("expected at least one row, found an empty data set")
	}
	if err != nil {
		return nil, fmt.Errorf("expected comma-separated values: %w", err)
	}
	return &table{unit: "line", header: header, next: func() (int, func(int) (string, bool), error) {
		cells, err := c.Read()
		if err == io.EOF {
			return 0, nil, err
		}
		if err != nil {
			return 0, nil, fmt.Errorf("expected comma-separated values: %w", err)
		}
		line, _ := c.FieldPos(0)
		return line, func(i int) (string, bool) {
			if i >= len(cells) {
				return "", false
			}
			return cells[i], true
		}, nil
	}}, nil
}

// openJSONL reads one JSON object a line; the keys of the first are the
// columns.
func openJSONL(r io.Reader) (*table, error) {
	next := lines(r)
	read := func() (int, map[string]json.RawMessage, error) {
		n, line, err := next()
		if err != nil {
			return n, nil, err
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(line, &object); err != nil || object == nil {
			return n, nil, fmt.Errorf("line %d: expected a JSON object a line, found %.60q", n, line)
		}
		return n, object, nil
	}
	n, object, err := read()
	if err == io.EOF {
		return nil, fmt.Errorf("expected at least one row, found an empty data set")
	}
	if err != nil {
		return nil, err
	}
	t := &table{unit: "line", header: make([]string, 0, len(object))}
	for key := range object {
		t.header = append(t.header, key)
	}
	sort.Strings(t.header)
	held := true
	t.next = func() (int, func(int) (string, bool), error) {
		if !held {
			if n, object, err = read(); err != nil {
				return 0, nil, err
			}
		}
		held = false
		return n, func(i int) (string, bool) { return scalar(object[t.header[i]]) }, nil
	}
	return t, nil
}

// scalar is a JSON string, or a number or truth value as it is written.
func scalar(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err == nil
	case 'n', '{', '[':
		return "", false
	}
	return string(raw), true
}

// openParquet reads a flat Parquet file. The library is not written for hostile
// files, so its panics are made errors.
func openParquet(f file) (t *table, err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("expected a Parquet file, found a broken one (%v)", e)
		}
	}()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	// The file ends with its footer, the footer's length and "PAR1"; the library
	// would allocate whatever length it is told.
	var tail [8]byte
	if size < 12 {
		return nil, fmt.Errorf("expected a Parquet file, found %d bytes", size)
	}
	if _, err := f.ReadAt(tail[:], size-8); err != nil {
		return nil, err
	}
	if footer := int64(binary.LittleEndian.Uint32(tail[:])); string(tail[4:]) != "PAR1" || footer > size-12 {
		return nil, fmt.Errorf("expected a Parquet file with a footer of at most %d bytes, found the ending %q", size-12, tail)
	}
	p, err := parquet.OpenFile(f, size)
	if err != nil {
		return nil, fmt.Errorf("expected a Parquet file: %w", err)
	}
	if p.NumRows() == 0 {
		return nil, errors.New("expected at least one row, found an empty data set")
	}
	t = &table{unit: "row"}
	for _, path := range p.Schema().Columns() {
		t.header = append(t.header, strings.Join(path, "."))
	}
	reader := parquet.NewReader(p)
	rows := make([]parquet.Row, 256)
	have, at, n := 0, 0, 0
	t.next = func() (_ int, _ func(int) (string, bool), err error) {
		defer func() {
			if e := recover(); e != nil {
				err = fmt.Errorf("row %d: expected a Parquet file, found a broken one (%v)", n+1, e)
			}
		}()
		for at == have {
			var err error
			at = 0
			if have, err = reader.ReadRows(rows); have == 0 && err != nil {
				if err != io.EOF {
					err = fmt.Errorf("row %d: expected a Parquet file: %w", n+1, err)
				}
				return 0, nil, err
			}
		}
		row := rows[at]
		at++
		n++
		return n, func(i int) (string, bool) {
			for _, v := range row {
				if v.Column() == i {
					return v.String(), !v.IsNull()
				}
			}
			return "", false
		}, nil
	}
	return t, nil
}
