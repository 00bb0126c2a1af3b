package task

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// file is what the readers need of an open file.
type file interface {
	io.Reader
	io.ReaderAt
	io.Seeker
}

// maxLine bounds one line of a text file, in bytes.
const maxLine = 16 << 20

var errEmpty = errors.New("expected at least one row, found an empty data set")

// openTable opens a file by the ending of its name.
func openTable(path string, f file, spec Spec) (*table, error) {
	name := strings.ToLower(filepath.Base(path))
	switch ext := filepath.Ext(name); {
	case ext == ".tsv", strings.HasPrefix(name, "sts-") && ext == ".csv":
		return openTSV(f, spec)
	case ext == ".csv":
		return openCSV(f)
	case ext == ".jsonl", ext == ".json":
		return openJSON(f)
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
		err = errEmpty
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
		return n, at(cells), noSurplus(n, cells, t.header)
	}
	return t, nil
}

// openJSON reads a list of JSON objects, or one a line; the keys of the first are
// the columns.
func openJSON(r io.Reader) (*table, error) {
	b := bufio.NewReader(r)
	for skip, mark := 0, true; ; skip++ {
		head, err := b.Peek(skip + 3)
		if len(head) <= skip {
			return openJSONLines(b)
		}
		switch {
		case mark && string(head) == "\uFEFF" && err == nil:
			skip += 2
		case head[skip] == '[':
			if _, err := b.Discard(skip); err != nil {
				return nil, err
			}
			return openJSONList(b)
		case !strings.ContainsRune(" \t\r\n", rune(head[skip])):
			return openJSONLines(b)
		}
		mark = false
	}
}

// openJSONList reads a list of objects, which is not held in memory.
func openJSONList(r io.Reader) (*table, error) {
	d := json.NewDecoder(r)
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	n := 0
	return objects("entry", func() (int, map[string]json.RawMessage, error) {
		n++
		if !d.More() {
			if _, err := d.Token(); err != nil {
				return n, nil, fmt.Errorf("entry %d: expected a list of JSON objects: %w", n, noEOF(err))
			}
			return n, nil, io.EOF
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return n, nil, fmt.Errorf("entry %d: expected a JSON object: %w", n, noEOF(err))
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil || object == nil {
			return n, nil, fmt.Errorf("entry %d: expected a JSON object, found %.60q", n, raw)
		}
		return n, object, nil
	})
}

// noEOF makes the end of a file one that was not expected.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// openJSONLines reads one object a line.
func openJSONLines(r io.Reader) (*table, error) {
	next := lines(r)
	return objects("line", func() (int, map[string]json.RawMessage, error) {
		n, line, err := next()
		if err != nil {
			return n, nil, err
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(line, &object); err != nil || object == nil {
			return n, nil, fmt.Errorf("line %d: expected a JSON object a line, found %.60q", n, line)
		}
		return n, object, nil
	})
}

// objects is the table of the objects that read returns, one by one.
func objects(unit string, read func() (int, map[string]json.RawMessage, error)) (*table, error) {
	n, object, err := read()
	if err == io.EOF {
		err = errEmpty
	}
	if err != nil {
		return nil, err
	}
	t := &table{unit: unit, header: make([]string, 0, len(object))}
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
	t.value = func(key string) json.RawMessage { return object[key] }
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
		return nil, errEmpty
	}
	if err := checkPages(p, f, size); err != nil {
		return nil, fmt.Errorf("expected a Parquet file: %w", err)
	}
	t = &table{unit: "row", bytes: size}
	var text []func(parquet.Value) (string, bool)
	for _, path := range p.Schema().Columns() {
		t.header = append(t.header, strings.Join(path, "."))
	}
	for _, e := range p.Metadata().Schema {
		if e.Type.Valid { // a leaf: a column
			text = append(text, valueText(e.LogicalType.Value))
		}
	}
	if len(text) != len(t.header) {
		return nil, fmt.Errorf("expected a Parquet file of %d columns, found %d", len(t.header), len(text))
	}
	reader := parquet.NewReader(p)
	rows := make([]parquet.Row, 256)
	have, at, n := 0, 0, 0
	t.value = func(key string) json.RawMessage { return parquetValue(p.Schema(), rows[at-1], key, text) }
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
				if v.Column() == i && !v.IsNull() {
					return text[i](v)
				}
			}
			return "", false
		}, nil
	}
	return t, nil
}

// parquetValue is what a row has under a key, as JSON: the text of a column, or of a list
// of records its columns without lists of their own; nil if the row has nothing there.
func parquetValue(schema *parquet.Schema, row parquet.Row, key string, text []func(parquet.Value) (string, bool)) json.RawMessage {
	var records []map[string]string
	for _, path := range schema.Columns() {
		leaf, ok := schema.Lookup(path...)
		if !ok || path[0] != key || leaf.MaxRepetitionLevel > 1 || leaf.MaxRepetitionLevel == 0 && len(path) > 1 {
			continue
		}
		i := 0
		for _, v := range row {
			if v.Column() != leaf.ColumnIndex {
				continue
			}
			for len(records) <= i {
				records = append(records, map[string]string{})
			}
			if !v.IsNull() {
				if s, ok := text[v.Column()](v); ok {
					records[i][path[len(path)-1]] = s
				}
			}
			i++
		}
		if len(path) == 1 {
			s, ok := records[0][key]
			if !ok {
				return nil
			}
			return mustJSON(s)
		}
	}
	records = slices.DeleteFunc(records, func(r map[string]string) bool { return len(r) == 0 }) // an empty list is one of nothing
	if records == nil {
		return nil
	}
	return mustJSON(records)
}

func mustJSON(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // of strings
	}
	return raw
}

// valueText returns how the values of a logical type are written; not a number,
// which pandas writes where it has none, is not there.
func valueText(logical format.LogicalTypeValue) func(parquet.Value) (string, bool) {
	number := func(v float64, bits int) (string, bool) { return strconv.FormatFloat(v, 'g', -1, bits), !math.IsNaN(v) }
	const halfBytes, mostScale = 2, 100
	return func(v parquet.Value) (string, bool) {
		switch l := logical.(type) {
		case *format.Float16Type:
			if b := bytesOf(v); len(b) == halfBytes {
				return number(float16(binary.LittleEndian.Uint16(b)), 32)
			}
		case *format.DecimalType:
			if n := unscaled(v); n != nil && l.Scale >= 0 && l.Scale <= mostScale {
				scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(l.Scale)), nil)
				return new(big.Rat).SetFrac(n, scale).FloatString(int(l.Scale)), true
			}
		case *format.IntType:
			switch {
			case l.IsSigned:
			case v.Kind() == parquet.Int32:
				return strconv.FormatUint(uint64(uint32(v.Int32())), 10), true
			case v.Kind() == parquet.Int64:
				return strconv.FormatUint(uint64(v.Int64()), 10), true
			}
		}
		switch v.Kind() {
		case parquet.Float:
			return number(float64(v.Float()), 32)
		case parquet.Double:
			return number(v.Double(), 64)
		}
		return v.String(), true
	}
}

// bytesOf are the bytes of a value that has some.
func bytesOf(v parquet.Value) []byte {
	if v.Kind() == parquet.ByteArray || v.Kind() == parquet.FixedLenByteArray {
		return v.ByteArray()
	}
	return nil
}

// unscaled is the whole number of a decimal: of bytes, big endian in two's
// complement; nil for a type that no decimal has.
func unscaled(v parquet.Value) *big.Int {
	switch v.Kind() {
	case parquet.Int32:
		return big.NewInt(int64(v.Int32()))
	case parquet.Int64:
		return big.NewInt(v.Int64())
	}
	b := bytesOf(v)
	if len(b) == 0 {
		return nil
	}
	n := new(big.Int).SetBytes(b)
	if b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

// float16 is the value of a half-precision number (IEEE 754).
func float16(bits uint16) float64 {
	sign, exponent, fraction := 1-2*float64(bits>>15), int(bits>>10&0x1F), float64(bits&0x3FF)/(1<<10)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -14)
	case 0x1F:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1+fraction, exponent-15)
}
