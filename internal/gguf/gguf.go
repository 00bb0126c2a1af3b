// Package gguf reads GGUF files, the container in which llama.cpp keeps a model:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"mlpfusion/internal/disk"
)

// The largest of what is held in memory, far beyond what models have.
const (
	maxText    = 64 << 20
	maxArray   = 1 << 24
	maxKeys    = 1 << 16
	maxTensors = 1 << 20
)

// File is what a GGUF file says of itself.
type File struct {
	// Values are the metadata: int64, float64, bool or string, or a slice of one
	// of these.
	Values  map[string]any
	Tensors []Tensor // in the file's order

	values, end int64 // where the metadata begin and end
	keys        uint64
}

// Tensor is where a tensor lies.
type Tensor struct {
	Name   string
	Type   Type
	Shape  []int // the dimension whose elements are neighbours is the last
	Offset int64 // of its first byte in the file
}

// Elements returns the product of the shape.
func (t *Tensor) Elements() int {
	n := 1
	for _, s := range t.Shape {
		n *= s
	}
	return n
}

// ReadFile reads all but the values of tensors of a file. Errors name it.
func ReadFile(path string) (*File, error) {
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: expected a GGUF file, found %s", path, info.Mode().Type())
	}
	file, err := Parse(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

// Parse reads metadata and list of tensors of a file of this many bytes. Errors say
// what was expected and found, and leave it to the caller to name the file.
func Parse(r io.ReaderAt, size int64) (*File, error) {
	d := &decoder{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<16), left: size}
	if magic := d.bytes(4); d.err == nil && string(magic) != "GGUF" {
		return nil, errors.New("expected a file that starts with GGUF: this is no GGUF file")
	}
	if v := d.u32(); d.err == nil && v != 2 && v != 3 {
		return nil, fmt.Errorf("expected version 2 or 3 of GGUF, little endian, found %d", v)
	}
	tensors := d.count("tensors", maxTensors)
	f := &File{Values: map[string]any{}, keys: d.count("keys of metadata", maxKeys)}
	f.values = size - d.left
	for range f.keys {
		key := d.text()
		if d.err != nil {
			break
		}
		if _, ok := f.Values[key]; ok {
			return nil, fmt.Errorf("key %q occurs twice", key)
		}
		f.Values[key] = d.value(d.u32())
		if d.err != nil {
			return nil, fmt.Errorf("key %q: %w", key, d.err)
		}
	}
	f.end = size - d.left
	seen := map[string]bool{}
	for range tensors {
		t := d.tensor()
		if d.err != nil {
			break
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("tensor %q occurs twice", t.Name)
		}
		seen[t.Name] = true
		f.Tensors = append(f.Tensors, t)
	}
	if d.err != nil {
		return nil, d.err
	}
	return f, f.place(size-d.left, size)
}

// place turns offsets from the data's begin, which follows what ends at header, into
// those of the file, and checks that each tensor lies within it.
func (f *File) place(header, size int64) error {
	align := int64(32)
	if v, ok := f.Values["general.alignment"]; ok {
		n, isInt := v.(int64)
		if !isInt || n < 1 || n > 1<<20 || n&(n-1) != 0 {
			return fmt.Errorf("general.alignment: expected a power of two, found %v", v)
		}
		align = n
	}
	begin := (header + align - 1) / align * align
	for i := range f.Tensors {
		t := &f.Tensors[i]
		bytes := t.Type.Bytes(t.Elements())
		if t.Offset > size-begin-bytes {
			return fmt.Errorf("tensor %q: expected %d bytes from offset %d of the data on, found %d bytes of data: the file is truncated", t.Name, bytes, t.Offset, max(0, size-begin))
		}
		t.Offset += begin
	}
	return nil
}

// Header returns a reader of a GGUF file with the metadata of f, which was read
// from r, and no tensors.
func (f *File) Header(r io.ReaderAt) io.Reader {
	start := []byte("GGUF")
	start = binary.LittleEndian.AppendUint32(start, 3)
	start = binary.LittleEndian.AppendUint64(start, 0)
	start = binary.LittleEndian.AppendUint64(start, f.keys)
	return io.MultiReader(strings.NewReader(string(start)), io.NewSectionReader(r, f.values, f.end-f.values))
}

// Get returns a key's value and whether it is there; another type is an error.
func Get[T any](f *File, key string) (v T, ok bool, err error) {
	value, ok := f.Values[key]
	if !ok {
		return v, false, nil
	}
	if v, ok = value.(T); !ok {
		return v, false, fmt.Errorf("key %q: expected %s, found %s", key, inWords(any(v)), inWords(value))
	}
	return v, true, nil
}

func inWords(v any) string {
	return strings.NewReplacer("[]", "a list of ", "int64", "whole numbers", "float64", "numbers", "bool", "truth values", "string", "text").Replace(fmt.Sprintf("%T", v))
}

// decoder reads from a file's start. After the first error all it returns is 0.
type decoder struct {
	r    *bufio.Reader
	left int64
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// bytes returns the next n, of which the file must have as many.
func (d *decoder) bytes(n uint64) []byte {
	if d.err == nil && n > uint64(d.left) {
		d.fail("expected %d more bytes, found %d: the file is truncated", n, d.left)
	}
	if d.err != nil {
		return make([]byte, min(n, 8))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.err = err
	}
	d.left -= int64(n)
	return b
}

func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.bytes(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.bytes(8)) }

func (d *decoder) count(what string, most uint64) uint64 {
	n := d.u64()
	if n > most {
		d.fail("expected at most %d %s, found %d", most, what, n)
		return 0
	}
	return n
}

func (d *decoder) text() string {
	n := d.count("bytes of text", maxText)
	if d.err != nil {
		return ""
	}
	return string(d.bytes(n))
}

// The types of metadata.
const (
	typeBool   = 7
	typeString = 8
	typeArray  = 9
)

// value reads a value of a type.
func (d *decoder) value(kind uint32) any {
	if kind != typeArray {
		return d.scalar(kind)
	}
	kind = d.u32()
	n := d.count("entries of an array", maxArray)
	if d.err != nil {
		return nil
	}
	switch kind {
	case typeBool:
		return list[bool](d, kind, n)
	case typeString:
		return list[string](d, kind, n)
	case 6, 12:
		return list[float64](d, kind, n)
	}
	return list[int64](d, kind, n)
}

func list[T any](d *decoder, kind uint32, n uint64) []T {
	v := []T{}
	for range n {
		x, ok := d.scalar(kind).(T)
		if d.err != nil || !ok {
			d.fail("expected no array of arrays")
			return nil
		}
		v = append(v, x)
	}
	return v
}

// scalar reads a value of a type that is no array.
func (d *decoder) scalar(kind uint32) any {
	switch kind {
	case 0:
		return int64(d.bytes(1)[0])
	case 1:
		return int64(int8(d.bytes(1)[0]))
	case 2:
		return int64(binary.LittleEndian.Uint16(d.bytes(2)))
	case 3:
		return int64(int16(binary.LittleEndian.Uint16(d.bytes(2))))
	case 4:
		return int64(d.u32())
	case 5:
		return int64(int32(d.u32()))
	case 6:
		return float64(math.Float32frombits(d.u32()))
	case typeBool:
		return d.bytes(1)[0] != 0
	case typeString:
		return d.text()
	case 10:
		v := d.u64()
		if v > math.MaxInt64 {
			d.fail("expected at most %d, found %d", int64(math.MaxInt64), v)
		}
		return int64(v)
	case 11:
		return int64(d.u64())
	case 12:
		return math.Float64frombits(d.u64())
	}
	d.fail("expected a type of metadata from 0 to 12, found %d", kind)
	return nil
}

// tensor reads an entry of the list of tensors, its offset as it is there.
func (d *decoder) tensor() Tensor {
	t := Tensor{Name: d.text()}
	dims := d.u32()
	if d.err == nil && (t.Name == "" || len(t.Name) > 4096 || !utf8.ValidString(t.Name)) {
		d.fail("expected a tensor's name of 1 to 4096 bytes of UTF-8, found %.80q", t.Name)
	}
	if dims < 1 || dims > 4 {
		d.fail("tensor %q: expected 1 to 4 dimensions, found %d", t.Name, dims)
		return t
	}
	elements := uint64(1)
	for range dims {
		n := d.u64()
		if n == 0 || n > 1<<40/elements {
			d.fail("tensor %q: expected a shape of 1 to %d elements, found %d times %d", t.Name, int64(1<<40), elements, n)
			return t
		}
		elements *= n
		t.Shape = append(t.Shape, int(n))
	}
	first := t.Shape[0]
	slices.Reverse(t.Shape)
	kind, offset := d.u32(), d.u64()
	if d.err != nil {
		return t
	}
	var ok bool
	if t.Type, ok = types[kind]; !ok {
		d.fail("tensor %q: expected one of the types %s, found %s", t.Name, known(), typeName(kind))
		return t
	}
	if first%t.Type.Block != 0 {
		d.fail("tensor %q: expected rows of a multiple of %d elements of %s, found %d", t.Name, t.Type.Block, t.Type.Name, first)
	}
	if offset > 1<<60 {
		d.fail("tensor %q: expected an offset within the file, found %d", t.Name, offset)
	}
	t.Offset = int64(offset)
	return t
}
