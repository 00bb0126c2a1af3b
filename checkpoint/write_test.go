package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// fileNames lists a directory, temporaries included.
func fileNames(t rapid.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Whatever is written, in any order and any sharding, is read back the same.
func TestWriteReadProperty(t *testing.T) {
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		dir := filepath.Join(root, fmt.Sprint(run))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9._ü/"\\]{1,12}`), 1, 8, rapid.ID[string]).Draw(t, "names")
		all := []DType{F32, F16, BF16, F64, I64, I32, I16, I8, U64, U32, U16, U8, BOOL}
		var specs []Spec
		data := map[string][]byte{}
		total := 0
		for _, name := range names {
			s := Spec{name, rapid.SampledFrom(all).Draw(t, "dtype"), rapid.SliceOfN(rapid.IntRange(0, 4), 0, 3).Draw(t, "shape")}
			specs = append(specs, s)
			_, size, err := sizeOf(s.DType, s.Shape)
			if err != nil {
				t.Fatal(err)
			}
			data[name] = rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "data")
			total += size
		}
		metadata := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "metadata")
		max := rapid.IntRange(0, 300).Draw(t, "max")
		w, err := Create(dir, specs, WriteOptions{MaxShardBytes: max, Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		for _, name := range rapid.Permutation(names).Draw(t, "order") {
			if err := w.WriteBytes(name, data[name]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		r, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		if !slices.Equal(r.Names(), slices.Sorted(slices.Values(names))) {
			t.Fatalf("names %q, expected %q", r.Names(), names)
		}
		for _, s := range specs {
			tensor, _ := r.Tensor(s.Name)
			if tensor.DType != s.DType || !slices.Equal(tensor.Shape, s.Shape) || !bytes.Equal(stored(t, tensor), data[s.Name]) {
				t.Fatalf("%+v came back as %s %v %x", s, tensor.DType, tensor.Shape, stored(t, tensor))
			}
		}
		for k, v := range metadata {
			if r.Metadata()[k] != v {
				t.Fatalf("metadata %q: %q, expected %q", k, r.Metadata()[k], v)
			}
		}
		if whole := max == 0 || total <= max; whole && filepath.Base(r.files[0].Name()) != weightsFile {
			t.Fatalf("%d bytes in shards of %d: files %v", total, max, fileNames(t, dir))
		}
	})
}

func TestShardNames(t *testing.T) {
	dir := t.TempDir()
	specs := []Spec{{"a", F32, []int{2}}, {"big", F32, []int{9}}, {"b", F16, []int{2}}, {"c", U8, []int{1}}}
	w, err := Create(dir, specs, WriteOptions{MaxShardBytes: 8})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		_, size, _ := sizeOf(s.DType, s.Shape)
		if err := w.WriteBytes(s.Name, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	w.Abort() // does nothing any more
	want := []string{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors", indexFile}
	if got := fileNames(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %q", got)
	}
	index, _ := os.ReadFile(filepath.Join(dir, indexFile))
	if got := string(index); got != `{
  "metadata": {
    "total_size": 49
  },
  "weight_map": {
    "a": "model-00001-of-00003.safetensors",
    "b": "model-00003-of-00003.safetensors",
    "big": "model-00002-of-00003.safetensors",
    "c": "model-00003-of-00003.safetensors"
  }
}
` {
		t.Errorf("index:\n%s", got)
	}
}

// Rounding through the writer, across the boundary of its chunks.
func TestWriteFloat32(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	values := make([]float32, chunk/2+3)
	for i := range values {
		values[i] = float32(i%1000) / 7
	}
	specs := []Spec{{"f32", F32, []int{len(values)}}, {"f16", F16, []int{len(values)}}, {"bf16", BF16, []int{len(values)}}}
	w, err := CreateFile(path, specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, s := range specs {
		if err := w.WriteFloat32(s.Name, values); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	r := open(t, path)
	f32, f16, bf16 := float32s(t, r, "f32"), float32s(t, r, "f16"), float32s(t, r, "bf16")
	for i, v := range values {
		if f32[i] != v || f16[i] != float16to32(float32to16(v)) || math.Float32bits(bf16[i])>>16 != uint32(float32toBF16(v)) {
			t.Fatalf("element %d: %g came back as %g, %g, %g", i, v, f32[i], f16[i], bf16[i])
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, c := range []struct {
		want  string
		specs []Spec
	}{
		{"found it twice", []Spec{{"a", F32, nil}, {"a", F32, nil}}},
		{"known dtype", []Spec{{"a", "F8", nil}}},
		{"at least 0", []Spec{{"a", F32, []int{-1}}}},
		{"more elements", []Spec{{"a", F32, []int{math.MaxInt / 2, 3}}}},
		{"not reserved", []Spec{{"__metadata__", F32, nil}}},
		{"control characters", []Spec{{"a\nb", F32, nil}}},
	} {
		dir := t.TempDir()
		if _, err := Create(dir, c.specs, WriteOptions{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("expected an error with %q, found %v", c.want, err)
		}
		if got := fileNames(t, dir); len(got) > 0 {
			t.Errorf("%s: left behind %q", c.want, got)
		}
	}

	dir := t.TempDir()
	old := filepath.Join(dir, weightsFile)
	if err := os.WriteFile(old, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := Create(dir, []Spec{{"a", F16, []int{2}}, {"b", BF16, []int{1}}, {"i", I64, []int{1}}}, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, nil, WriteOptions{}); err == nil || !strings.Contains(err.Error(), "being written already") {
		t.Errorf("second writer: %v", err)
	}
	refuse := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected an error with %q, found %v", want, err)
		}
	}
	refuse(w.WriteFloat32("x", nil), "not announced")
	refuse(w.WriteFloat32("a", make([]float32, 3)), "shape [2], found 3")
	refuse(w.WriteFloat32("a", []float32{1, 70000}), "element 1 is 70000, too large for F16")
	refuse(w.WriteFloat32("b", []float32{math.MaxFloat32}), "too large for BF16")
	refuse(w.WriteFloat32("i", []float32{1}), "found I64")
	refuse(w.WriteBytes("i", make([]byte, 4)), "expected 8 bytes for I64 [1], found 4")
	if err := w.WriteFloat32("a", []float32{1, float32(math.Inf(1))}); err != nil {
		t.Error(err) // an infinity stays one
	}
	refuse(w.WriteBytes("a", make([]byte, 4)), "written twice")
	refuse(w.Commit(), `tensor "b" was announced but never written`)
	if got := fileNames(t, dir); !slices.Equal(got, []string{weightsFile}) {
		t.Errorf("left behind %q", got)
	}
	if data, _ := os.ReadFile(old); string(data) != "old" {
		t.Errorf("the old file is %q", data)
	}
}

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "metrics.jsonl")
	// What a killed run left is used again, not kept.
	if err := os.WriteFile(temporaryName(path), []byte("half of a longer line"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"one", "two"} {
		if err := WriteFileAtomic(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(path); string(data) != content {
			t.Errorf("content %q, expected %q", data, content)
		}
	}
	f, err := CreateAtomic(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("three"); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "two" {
		t.Errorf("before Commit it is %q", data)
	}
	f.Abort()
	if got := fileNames(t, dir); !slices.Equal(got, []string{"metrics.jsonl"}) {
		t.Errorf("left behind %q", got)
	}
}

// TestWriteFileAtomicTogether: writers of one small file, as shards that begin at
// the same moment are, wait for each other, and one of them has written it whole.
func TestWriteFileAtomicTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shared.json")
	errs := make(chan error)
	const writers, times = 8, 20
	for i := range writers {
		go func() {
			var err error
			for range times {
				err = errors.Join(err, WriteFileAtomic(path, bytes.Repeat([]byte{byte('a' + i)}, 1000)))
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || len(got) != 1000 || !bytes.Equal(got, bytes.Repeat(got[:1], 1000)) {
		t.Errorf("%d bytes, %v; want 1000 of one writer", len(got), err)
	}
}

// Reading and copying a large file must not hold it in memory: neither on the
// heap nor as mapped pages. 200 MB of a sparse file, 8 MB tensors.
func TestStreamingIsBounded(t *testing.T) {
	const tensors, elements = 25, 2 << 20
	dir := t.TempDir()
	path := filepath.Join(dir, "large.safetensors")
	var specs []Spec
	for i := range tensors {
		specs = append(specs, Spec{fmt.Sprintf("layer.%02d", i), F32, []int{elements}})
	}
	header, offsets, err := encodeHeader(specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, header, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(header)+offsets[tensors])); err != nil {
		t.Fatal(err)
	}
	r := open(t, path)
	values := make([]float32, elements)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w, err := CreateFile(filepath.Join(dir, "copy.safetensors"), specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, s := range specs {
		tensor, _ := r.Tensor(s.Name)
		if err := tensor.ReadFloat32(values); err != nil {
			t.Fatal(err)
		}
		if err := w.Copy(tensor.Name, tensor); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	// A buffer or two and the lists of tensors; one of the tensors would be 8 MB.
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes allocated to stream %d", grown, offsets[tensors])
	}
}

func TestHeaderAlignment(t *testing.T) {
	for i := range 17 {
		header, _, err := encodeHeader([]Spec{{strings.Repeat("x", i+1), F32, nil}}, nil)
		if err != nil || len(header)%8 != 0 || int(binary.LittleEndian.Uint64(header)) != len(header)-8 {
			t.Errorf("header of %d bytes: %v", len(header), err)
		}
	}
}
