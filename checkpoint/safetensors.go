package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"mlpfusion/internal/disk"
)

// The names under which a directory's weights are looked for, in this order.
const (
	weightsFile = "model.safetensors"
	indexFile   = "model.safetensors.index.json"
	pickleFile  = "pytorch_model.bin" // of PyTorch, which is not read
)

// maxHeader is the reference reader's limit on a header's bytes.
const maxHeader = 100_000_000

// Tensor is one tensor of an open file. It is read until its Reader is closed.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	File  string // path of the file that holds it

	data  io.ReaderAt // of the file
	begin int64       // where its bytes are in data
	bytes int
}

// Elements returns the product of the shape: 1 for a scalar.
func (t *Tensor) Elements() int { return t.bytes / t.DType.Size() }

// Rows returns rows [from, to) of the tensor, by its first dimension, as one of
// their own under the same name.
func (t *Tensor) Rows(from, to int) *Tensor {
	part := *t
	row := t.bytes / t.Shape[0]
	part.begin, part.bytes = t.begin+int64(from*row), (to-from)*row
	part.Shape = append([]int{to - from}, t.Shape[1:]...)
	return &part
}

// Read reads the stored bytes, little endian, into dst, which must be as long.
func (t *Tensor) Read(dst []byte) error {
	if len(dst) != t.bytes {
		return fmt.Errorf("%s: tensor %q: expected %d bytes, found %s %v", t.File, t.Name, len(dst), t.DType, t.Shape)
	}
	return t.readAt(dst, 0)
}

// readAt reads stored bytes from an offset on.
func (t *Tensor) readAt(dst []byte, offset int) error {
	if _, err := t.data.ReadAt(dst, t.begin+int64(offset)); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return nil
}

// ReadFloat32 converts an F64, F32, F16 or BF16 tensor to float32: F64 is rounded to
// the nearest, the others are exact. dst must have Elements() elements.
func (t *Tensor) ReadFloat32(dst []float32) error {
	if !t.DType.IsFloat() {
		return fmt.Errorf("%s: tensor %q: expected dtype F64, F32, F16 or BF16, found %s", t.File, t.Name, t.DType)
	}
	if len(dst) != t.Elements() {
		return fmt.Errorf("%s: tensor %q: expected %d elements, found shape %v", t.File, t.Name, len(dst), t.Shape)
	}
	if t.DType == F32 && littleEndian {
		return t.readAt(float32Bytes(dst), 0)
	}
	size := t.DType.Size()
	buffer := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buffer)
	for i := 0; i < len(dst); {
		part := dst[i:min(len(dst), i+chunk/size)]
		raw := buffer[:len(part)*size]
		if err := t.readAt(raw, i*size); err != nil {
			return err
		}
		decodeFloat32(part, raw, t.DType)
		i += len(part)
	}
	return nil
}

// SameBytes tells whether two tensors are stored alike, byte for byte.
func (t *Tensor) SameBytes(other *Tensor) (bool, error) {
	if t.bytes != other.bytes {
		return false, nil
	}
	a, b := buffers.Get().(*[chunk]byte), buffers.Get().(*[chunk]byte)
	defer buffers.Put(a)
	defer buffers.Put(b)
	for i := 0; i < t.bytes; i += chunk {
		n := min(chunk, t.bytes-i)
		if err := errors.Join(t.readAt(a[:n], i), other.readAt(b[:n], i)); err != nil {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// weightFile is an open file of tensors. It is read, not mapped: a file that
// another program shortens or writes to meanwhile is then an error of the read,
// where in a mapping it would end the process.
type weightFile struct {
	*disk.File
	size    int64
	written time.Time
	read    atomic.Int64 // bytes, so far
}

// openWeights opens a file of at least 8 bytes.
func openWeights(path string) (*weightFile, error) {
	info, err := os.Stat(path) // before opening: opening a pipe would wait for its writer
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: expected a file of weights, found %s", path, info.Mode().Type())
	}
	f, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && (info.Size() < 8 || int64(int(info.Size())) != info.Size()) {
		err = fmt.Errorf("%s: expected a file of weights of at least 8 bytes, found %d", path, info.Size())
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return &weightFile{File: f, size: info.Size(), written: info.ModTime()}, nil
}

// ReadAt implements io.ReaderAt. What it returns is of the file as it was opened.
func (f *weightFile) ReadAt(p []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(p, at)
	f.read.Add(int64(n))
	if err != nil && err != io.EOF {
		return n, err // names the file
	}
	info, failed := f.Stat()
	switch {
	case failed != nil:
		return n, failed
	case info.Size() != f.size:
		return n, fmt.Errorf("%s: expected the %d bytes it had when it was opened, found %d: another program writes to it", f.Name(), f.size, info.Size())
	case !info.ModTime().Equal(f.written):
		return n, fmt.Errorf("%s: expected the file as it was when it was opened, found it changed: another program writes to it", f.Name())
	}
	return n, err
}

// Reader holds the tensors of one safetensors file, or of all shards of a
// directory.
type Reader struct {
	files    []*weightFile
	names    []string
	tensors  map[string]*Tensor
	metadata map[string]string
}

// Open opens a safetensors file, or the weights of a directory:
// model.safetensors, or else the shards of model.safetensors.index.json.
func Open(dirOrFile string) (*Reader, error) {
	info, err := os.Stat(dirOrFile)
	if err != nil {
		return nil, err
	}
	r := newReader()
	if info.IsDir() {
		err = r.openDir(dirOrFile)
	} else {
		err = r.openFile(dirOrFile)
	}
	if err != nil {
		_ = r.Close() // the first error says it
		return nil, err
	}
	return r, nil
}

func newReader() *Reader {
	return &Reader{tensors: map[string]*Tensor{}, metadata: map[string]string{}}
}

// Close closes the files.
func (r *Reader) Close() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	r.files, r.names, r.tensors = nil, nil, nil
	return errors.Join(errs...)
}

// BytesRead is how many bytes of the files have been read so far.
func (r *Reader) BytesRead() (n int64) {
	for _, f := range r.files {
		n += f.read.Load()
	}
	return n
}

// Names returns the names of all tensors, sorted.
func (r *Reader) Names() []string { return r.names }

// Tensor returns the tensor of that name.
func (r *Reader) Tensor(name string) (*Tensor, bool) {
	t, ok := r.tensors[name]
	return t, ok
}

// Metadata returns the free-form strings of the headers' "__metadata__".
func (r *Reader) Metadata() map[string]string { return r.metadata }

func (r *Reader) openDir(dir string) error {
	path := filepath.Join(dir, weightsFile)
	if exists(path) {
		return r.openFile(path)
	}
	path = filepath.Join(dir, indexFile)
	if exists(path) {
		return r.openShards(path)
	}
	if old, _ := filepath.Glob(filepath.Join(dir, "pytorch_model*.bin")); len(old) > 0 {
		return fmt.Errorf("%s: only the pickle file %s is there, which can run code when read; give the folder a %s once, in Python: %s",
			dir, filepath.Base(old[0]), weightsFile, fromPickle(dir))
	}
	return fmt.Errorf("%s: expected %s or %s, found neither", dir, weightsFile, indexFile)
}

// fromPickle is the command that writes a folder's weights once more, as safetensors:
// by the class that config.json names, so that the head stays, and into the same
// folder, so that all other files do.
func fromPickle(dir string) string {
	const script = `import sys, transformers as t; d = sys.argv[1]; a = t.AutoConfig.from_pretrained(d).architectures; getattr(t, a[0] if a else "AutoModel").from_pretrained(d).save_pretrained(d)`
	return fmt.Sprintf("python3 -c '%s' '%s'", script, strings.ReplaceAll(dir, "'", `'\''`))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openShards opens every file that the index names, and checks that what they hold is
// where the index says. Of a tensor that it names and no shard holds, whoever wants it
// will be told: some published indices name copies that were never written.
func (r *Reader) openShards(index string) error {
	weightMap, err := readIndex(index)
	if err != nil {
		return err
	}
	shards := map[string]bool{}
	for _, shard := range weightMap {
		shards[shard] = true
	}
	dir := filepath.Dir(index)
	var wrong []string
	for _, shard := range slices.Sorted(maps.Keys(shards)) {
		if err := r.openFile(filepath.Join(dir, shard)); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s: expected the shard %s beside it, found none", index, shard)
			}
			return err
		}
	}
	for name, shard := range weightMap {
		if t, ok := r.tensors[name]; ok && filepath.Base(t.File) != shard {
			wrong = append(wrong, fmt.Sprintf("%s lacks %q", shard, name))
		}
	}
	for name, t := range r.tensors {
		if _, ok := weightMap[name]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s holds %q, which is not in the index", filepath.Base(t.File), name))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("%s: index and shards disagree: %s", index, listed(wrong))
	}
	return nil
}

// listed joins sentences' parts, cutting long lists short.
func listed(parts []string) string {
	const most = 8
	if len(parts) > most {
		return strings.Join(parts[:most], "; ") + fmt.Sprintf("; and %d more", len(parts)-most)
	}
	return strings.Join(parts, "; ")
}

// readIndex returns the weight map of an index file: tensor name to shard.
func readIndex(path string) (map[string]string, error) {
	data, err := readSmallFile(path)
	if err != nil {
		return nil, err
	}
	weightMap, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return weightMap, nil
}

func parseIndex(data []byte) (map[string]string, error) {
	top, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(top, func(f field) bool { return f.key == "weight_map" })
	if at < 0 {
		return nil, errors.New(`expected key "weight_map", found none`)
	}
	fields, err := parseObject(top[at].raw)
	if err != nil {
		return nil, fmt.Errorf("weight_map: %w", err)
	}
	weightMap := make(map[string]string, len(fields))
	for _, f := range fields {
		var shard string
		if json.Unmarshal(f.raw, &shard) != nil || !plainFileName(shard) || !strings.HasSuffix(shard, ".safetensors") {
			return nil, fmt.Errorf("weight_map: tensor %q: expected the name of a .safetensors file in the same directory, found %s", f.key, f.raw)
		}
		weightMap[f.key] = shard
	}
	if len(weightMap) == 0 {
		return nil, errors.New("weight_map: expected tensors, found none")
	}
	return weightMap, nil
}

// plainFileName reports whether a name stays inside the directory it is joined to.
func plainFileName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\\x00")
}

// openFile opens one file and adds its tensors.
func (r *Reader) openFile(path string) error {
	f, err := openWeights(path)
	if err != nil {
		return err
	}
	r.files = append(r.files, f)
	tensors, metadata, err := parseSafetensors(f, f.size)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, t := range tensors {
		if other, ok := r.tensors[t.Name]; ok {
			return fmt.Errorf("%s: tensor %q is also in %s", path, t.Name, other.File)
		}
		t.File = path
		r.tensors[t.Name] = t
		r.names = append(r.names, t.Name)
	}
	slices.Sort(r.names)
	maps.Copy(r.metadata, metadata)
	return nil
}

// parseSafetensors reads and checks the header of a file of this many bytes: 8 bytes
// of header length, a JSON object of that length, then the tensors' bytes without
// holes. The tensors come back in the order of their bytes.
func parseSafetensors(file io.ReaderAt, size int64) ([]*Tensor, map[string]string, error) {
	var prefix [8]byte
	if size < 8 {
		return nil, nil, fmt.Errorf("expected at least 8 bytes, found %d", size)
	}
	if _, err := file.ReadAt(prefix[:], 0); err != nil {
		return nil, nil, err
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if length > maxHeader {
		return nil, nil, fmt.Errorf("expected a header of at most %d bytes, found a length of %d: this is not a safetensors file", maxHeader, length)
	}
	if length > uint64(size-8) {
		return nil, nil, fmt.Errorf("expected a header of %d bytes, found only %d bytes: the file is truncated", length, size-8)
	}
	header := make([]byte, length)
	if _, err := file.ReadAt(header, 8); err != nil && err != io.EOF {
		return nil, nil, err
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, errors.New("header: expected a JSON object that starts with {: this is not a safetensors file")
	}
	fields, err := parseObject(header)
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	start := 8 + int64(length)
	tensors := make([]*Tensor, 0, len(fields))
	var metadata map[string]string
	for _, f := range fields {
		if f.key == "__metadata__" {
			if metadata, err = parseMetadata(f.raw); err != nil {
				return nil, nil, err
			}
			continue
		}
		t, err := parseTensor(f, int(size-start))
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", f.key, err)
		}
		t.data, t.begin = file, t.begin+start
		tensors = append(tensors, t)
	}
	slices.SortFunc(tensors, func(a, b *Tensor) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.bytes, b.bytes))
	})
	next := start
	for _, t := range tensors {
		if t.begin < next {
			return nil, nil, fmt.Errorf("tensor %q: expected data from offset %d on, found %d: it overlaps the tensor before it", t.Name, next-start, t.begin-start)
		}
		if t.begin > next {
			return nil, nil, fmt.Errorf("tensor %q: expected data from offset %d on, found %d: the bytes between belong to no tensor", t.Name, next-start, t.begin-start)
		}
		next += int64(t.bytes)
	}
	if next != size {
		return nil, nil, fmt.Errorf("expected data of %d bytes, found %d: the last bytes belong to no tensor", next-start, size-start)
	}
	return tensors, metadata, nil
}

func parseMetadata(raw []byte) (map[string]string, error) {
	fields, err := parseObject(raw)
	if err != nil {
		return nil, fmt.Errorf("__metadata__: %w", err)
	}
	metadata := make(map[string]string, len(fields))
	for _, f := range fields {
		var value *string
		if json.Unmarshal(f.raw, &value) != nil || value == nil {
			return nil, fmt.Errorf("__metadata__: key %q: expected a string, found %s", f.key, shown(f.raw))
		}
		metadata[f.key] = *value
	}
	return metadata, nil
}

// parseTensor checks one entry of the header of a file with this many bytes of data,
// in which the tensor's begin is counted.
func parseTensor(f field, data int) (*Tensor, error) {
	if err := checkTensorName(f.key); err != nil {
		return nil, err
	}
	info, err := parseObject(f.raw)
	if err != nil {
		return nil, err
	}
	t := &Tensor{Name: f.key}
	var offsets []int
	var found int
	for _, part := range info {
		switch part.key {
		case "dtype":
			if json.Unmarshal(part.raw, (*string)(&t.DType)) != nil {
				return nil, fmt.Errorf("dtype: expected a string, found %s", shown(part.raw))
			}
		case "shape":
			if t.Shape, err = parseSizes(part.raw); err != nil {
				return nil, fmt.Errorf("shape: %w", err)
			}
		case "data_offsets":
			if offsets, err = parseSizes(part.raw); err != nil {
				return nil, fmt.Errorf("data_offsets: %w", err)
			}
		default:
			return nil, fmt.Errorf("expected keys dtype, shape and data_offsets, found %q", part.key)
		}
		found++
	}
	if found != 3 || t.Shape == nil {
		return nil, fmt.Errorf("expected keys dtype, shape and data_offsets, found %s", shown(f.raw))
	}
	_, bytes, err := sizeOf(t.DType, t.Shape)
	if err != nil {
		return nil, err
	}
	if len(offsets) != 2 || offsets[0] > offsets[1] {
		return nil, fmt.Errorf("data_offsets: expected a begin and an end, found %v", offsets)
	}
	if offsets[1] > data {
		return nil, fmt.Errorf("data_offsets: expected an end within the file's %d bytes of data, found %d: the file is truncated or the offset is wrong", data, offsets[1])
	}
	if offsets[1]-offsets[0] != bytes {
		return nil, fmt.Errorf("data_offsets: expected %d bytes for %s %v, found %d", bytes, t.DType, t.Shape, offsets[1]-offsets[0])
	}
	t.begin, t.bytes = int64(offsets[0]), bytes
	return t, nil
}

// parseSizes reads an array of whole numbers of at least 0; never nil.
func parseSizes(raw []byte) ([]int, error) {
	var numbers []*int // pointers, since null would pass for 0
	if json.Unmarshal(raw, &numbers) != nil || numbers == nil {
		return nil, fmt.Errorf("expected an array of whole numbers, found %s", shown(raw))
	}
	sizes := make([]int, len(numbers))
	for i, n := range numbers {
		if n == nil || *n < 0 {
			return nil, fmt.Errorf("expected whole numbers of at least 0, found %s", shown(raw))
		}
		sizes[i] = *n
	}
	return sizes, nil
}

// checkTensorName refuses names that could not be shown or stored plainly.
func checkTensorName(name string) error {
	if name == "" || len(name) > 4096 || name == "__metadata__" {
		return errors.New("expected a name of 1 to 4096 bytes that is not reserved")
	}
	if strings.ContainsFunc(name, unicode.IsControl) {
		return errors.New("expected a name without control characters")
	}
	return nil
}

// shown is raw JSON for a message, cut to a readable length.
func shown(raw []byte) string {
	const most = 80
	s := string(raw)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
