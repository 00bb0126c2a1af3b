package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
)

// Spec announces a tensor to be written.
type Spec struct {
	Name  string
	DType DType
	Shape []int
}

// WriteOptions are the choices of Create.
type WriteOptions struct {
	// MaxShardBytes is the most bytes of tensors in one file; 0 means one file.
	// A larger tensor gets a shard of its own.
	MaxShardBytes int
	// Metadata is stored in each header; transformers looks for {"format": "pt"}.
	Metadata map[string]string
}

// Writer writes the announced tensors, in any order, into one safetensors file
// or into shards with an index. Nothing is visible under the real names before
// Commit. Its methods may be called from several goroutines.
type Writer struct {
	files []*AtomicFile
	slots map[string]*slot
	index *AtomicFile // nil for a single file
	mu    sync.Mutex  // guards slot.written
}

// slot is where a tensor's bytes go.
type slot struct {
	Spec
	file    *AtomicFile
	offset  int64
	bytes   int
	written bool
}

// Create starts writing a directory's weights: model.safetensors, or shards
// model-00001-of-0000n.safetensors filled in the order of specs, with their
// index, if more than MaxShardBytes. The caller ends with Commit, or with
// Abort on every other way out.
func Create(dir string, specs []Spec, opt WriteOptions) (*Writer, error) {
	shards, total, err := split(specs, opt.MaxShardBytes)
	if err != nil {
		return nil, err
	}
	if len(shards) == 1 {
		return CreateFile(filepath.Join(dir, weightsFile), specs, opt.Metadata)
	}
	w := &Writer{slots: map[string]*slot{}}
	weightMap := map[string]string{}
	for i, shard := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		if err := w.addFile(filepath.Join(dir, name), shard, opt.Metadata); err != nil {
			w.Abort()
			return nil, err
		}
		for _, s := range shard {
			weightMap[s.Name] = name
		}
	}
	if w.index, err = createIndex(filepath.Join(dir, indexFile), total, weightMap); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// CreateFile starts writing one safetensors file.
func CreateFile(path string, specs []Spec, metadata map[string]string) (*Writer, error) {
	if _, _, err := split(specs, 0); err != nil {
		return nil, err
	}
	w := &Writer{slots: map[string]*slot{}}
	if err := w.addFile(path, specs, metadata); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// split checks the specs and cuts them into shards of at most max bytes; it
// also returns the bytes of all.
func split(specs []Spec, max int) (shards [][]Spec, total int, err error) {
	names := map[string]bool{}
	shards = [][]Spec{nil}
	var size int // of the last shard
	for _, s := range specs {
		_, bytes, err := sizeOf(s.DType, s.Shape)
		if err == nil {
			err = checkTensorName(s.Name)
		}
		if err == nil && names[s.Name] {
			err = errors.New("expected each name once, found it twice")
		}
		if err != nil {
			return nil, 0, fmt.Errorf("tensor %q: %w", s.Name, err)
		}
		names[s.Name] = true
		last := len(shards) - 1
		if max > 0 && size+bytes > max && len(shards[last]) > 0 {
			shards = append(shards, nil)
			last, size = last+1, 0
		}
		shards[last] = append(shards[last], s)
		size += bytes
		total += bytes
	}
	return shards, total, nil
}

// addFile creates a file and writes its header. Tensors lie as the reference
// writer puts them, wider types first and then by name: the same tensors give
// the same bytes, each aligned to its type.
func (w *Writer) addFile(path string, specs []Spec, metadata map[string]string) error {
	specs = slices.SortedFunc(slices.Values(specs), func(a, b Spec) int {
		return cmp.Or(cmp.Compare(dtypes[a.DType].place, dtypes[b.DType].place), cmp.Compare(a.Name, b.Name))
	})
	header, offsets, err := encodeHeader(specs, metadata)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f, err := CreateAtomic(path)
	if err != nil {
		return err
	}
	w.files = append(w.files, f)
	for i, s := range specs {
		w.slots[s.Name] = &slot{
			Spec: s, file: f,
			offset: int64(len(header) + offsets[i]),
			bytes:  offsets[i+1] - offsets[i],
		}
	}
	if _, err := f.Write(header); err != nil {
		return err
	}
	return f.Truncate(int64(len(header) + offsets[len(specs)]))
}

// encodeHeader returns the file's bytes before the data, padded with spaces to
// a multiple of 8, and the tensors' offsets in the data, one more than tensors.
func encodeHeader(specs []Spec, metadata map[string]string) (header []byte, offsets []int, err error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	separator := byte('{')
	put := func(key string, value any) error {
		k, err := encodeJSON(key)
		if err != nil {
			return err
		}
		v, err := encodeJSON(value)
		if err != nil {
			return err
		}
		b.WriteByte(separator)
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
		separator = ','
		return nil
	}
	if len(metadata) > 0 {
		if err := put("__metadata__", metadata); err != nil {
			return nil, nil, err
		}
	}
	offsets = make([]int, len(specs)+1)
	for i, s := range specs {
		_, bytes, _ := sizeOf(s.DType, s.Shape) // checked by split
		offsets[i+1] = offsets[i] + bytes
		err := put(s.Name, struct {
			DType   DType  `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{s.DType, append([]int{}, s.Shape...), [2]int{offsets[i], offsets[i+1]}})
		if err != nil {
			return nil, nil, err
		}
	}
	if separator == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	length := b.Len() - 8
	if length > maxHeader {
		return nil, nil, fmt.Errorf("expected a header of at most %d bytes, found %d", maxHeader, length)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(length))
	return b.Bytes(), offsets, nil
}

// createIndex writes the index as transformers does: sorted keys, indent 2.
func createIndex(path string, total int, weightMap map[string]string) (*AtomicFile, error) {
	raw, err := encodeJSON(struct {
		Metadata  any               `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}{map[string]int{"total_size": total}, weightMap})
	if err != nil {
		return nil, err
	}
	f, err := CreateAtomic(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(append(indentJSON(raw, ""), '\n')); err != nil {
		f.Abort()
		return nil, err
	}
	return f, nil
}

// slot returns the place of an announced tensor, or why it cannot be written.
func (w *Writer) slot(name string) (*slot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.slots[name]
	if !ok {
		return nil, fmt.Errorf("tensor %q was not announced to the writer", name)
	}
	if s.written {
		return nil, fmt.Errorf("%s: tensor %q is written twice", s.file.path, name)
	}
	return s, nil
}

func (w *Writer) done(s *slot) {
	w.mu.Lock()
	s.written = true
	w.mu.Unlock()
}

// chunk is the bytes converted or copied at a time.
const chunk = 1 << 20

// buffers are of a chunk each, for those who convert and copy.
var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// WriteFloat32 writes an F64, F32, F16 or BF16 tensor, rounding to nearest even. A
// finite value that the type cannot hold is an error.
func (w *Writer) WriteFloat32(name string, src []float32) error {
	s, err := w.slot(name)
	if err != nil {
		return err
	}
	if !s.DType.IsFloat() {
		return fmt.Errorf("%s: tensor %q: expected dtype F64, F32, F16 or BF16, found %s", s.file.path, name, s.DType)
	}
	size := s.DType.Size()
	if len(src)*size != s.bytes {
		return fmt.Errorf("%s: tensor %q: expected the elements of shape %v, found %d", s.file.path, name, s.Shape, len(src))
	}
	if s.DType == F32 && littleEndian {
		if _, err := s.file.WriteAt(float32Bytes(src), s.offset); err != nil {
			return err
		}
		w.done(s)
		return nil
	}
	buffer := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buffer)
	for i := 0; i < len(src); {
		part := src[i:min(len(src), i+chunk/size)]
		out := buffer[:len(part)*size]
		if bad := encodeFloat32(out, part, s.DType); bad >= 0 {
			return fmt.Errorf("%s: tensor %q: element %d is %g, too large for %s", s.file.path, name, i+bad, part[bad], s.DType)
		}
		if _, err := s.file.WriteAt(out, s.offset+int64(i*size)); err != nil {
			return err
		}
		i += len(part)
	}
	w.done(s)
	return nil
}

// WriteBytes writes a tensor of any type as its stored bytes, little endian.
func (w *Writer) WriteBytes(name string, raw []byte) error {
	s, err := w.slot(name)
	if err != nil {
		return err
	}
	if len(raw) != s.bytes {
		return fmt.Errorf("%s: tensor %q: expected %d bytes for %s %v, found %d", s.file.path, name, s.bytes, s.DType, s.Shape, len(raw))
	}
	if _, err := s.file.WriteAt(raw, s.offset); err != nil {
		return err
	}
	w.done(s)
	return nil
}

// Copy writes a tensor of an open file under a name, byte for byte. It never holds
// more than a chunk of it in memory.
func (w *Writer) Copy(name string, t *Tensor) error {
	s, err := w.slot(name)
	if err != nil {
		return err
	}
	if t.DType != s.DType || !slices.Equal(t.Shape, s.Shape) {
		return fmt.Errorf("%s: tensor %q: expected %s %v, found %s %v in %s", s.file.path, name, s.DType, s.Shape, t.DType, t.Shape, t.File)
	}
	buffer := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buffer)
	for i := 0; i < s.bytes; i += chunk {
		part := buffer[:min(chunk, s.bytes-i)]
		if err := t.readAt(part, i); err != nil {
			return err
		}
		if _, err := s.file.WriteAt(part, s.offset+int64(i)); err != nil {
			return err
		}
	}
	w.done(s)
	return nil
}

// Commit checks that every announced tensor was written, and gives the files
// their real names, the index last. On an error no temporary file is left.
func (w *Writer) Commit() error {
	defer w.Abort()
	for _, name := range slices.Sorted(maps.Keys(w.slots)) {
		if s := w.slots[name]; !s.written {
			return fmt.Errorf("%s: tensor %q was announced but never written", s.file.path, name)
		}
	}
	files := w.files
	if w.index != nil {
		files = append(slices.Clone(files), w.index)
	}
	for _, f := range files { // the likely failures first, before any rename
		if err := f.Sync(); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := f.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// Abort removes all temporary files. After Commit it does nothing.
func (w *Writer) Abort() {
	for _, f := range w.files {
		f.Abort()
	}
	if w.index != nil {
		w.index.Abort()
	}
}

// Spec returns the announcement that Copy of t needs.
func (t *Tensor) Spec() Spec { return Spec{t.Name, t.DType, t.Shape} }
