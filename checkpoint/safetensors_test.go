package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func open(t testing.TB, path string) *Reader {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func float32s(t testing.TB, r *Reader, name string) []float32 {
	t.Helper()
	tensor, ok := r.Tensor(name)
	if !ok {
		t.Fatalf("tensor %q is missing", name)
	}
	return float32Of(t, tensor)
}

func float32Of(t testing.TB, tensor *Tensor) []float32 {
	t.Helper()
	values := make([]float32, tensor.Elements())
	if err := tensor.ReadFloat32(values); err != nil {
		t.Fatal(err)
	}
	return values
}

// stored returns a tensor's bytes.
func stored(t rapid.TB, tensor *Tensor) []byte {
	t.Helper()
	raw := make([]byte, tensor.bytes)
	if err := tensor.Read(raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

// parseFile reads a file of these bytes.
func parseFile(file []byte) ([]*Tensor, map[string]string, error) {
	return parseSafetensors(bytes.NewReader(file), int64(len(file)))
}

func sameBits(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// PyTorch's own conversions are the reference, bit for bit.
func TestGoldenConversions(t *testing.T) {
	r := open(t, "testdata/golden/dtypes.safetensors")
	for stored, wanted := range map[string]string{"a.half": "half.as.float", "a.brain": "brain.as.float"} {
		got, want := float32s(t, r, stored), float32s(t, r, wanted)
		for i := range want {
			if !sameBits(got[i], want[i]) {
				t.Errorf("%s[%d] = %g, PyTorch %g", stored, i, got[i], want[i])
			}
		}
	}
	values := float32s(t, r, "rounding")
	for name, round := range map[string]func(float32) uint16{"rounded.half": float32to16, "rounded.brain": float32toBF16} {
		rounded, _ := r.Tensor(name)
		raw := stored(t, rounded)
		for i, v := range values {
			if got, want := round(v), binary.LittleEndian.Uint16(raw[2*i:]); got != want {
				t.Errorf("%s of %g = %#04x, PyTorch %#04x", name, v, got, want)
			}
		}
	}
	if got := float32s(t, r, "scalar"); len(got) != 1 || got[0] != 2.5 {
		t.Errorf("scalar = %v", got)
	}
	ids, _ := r.Tensor("position_ids")
	if ids.DType != I64 || !slices.Equal(ids.Shape, []int{1, 6}) || stored(t, ids)[8] != 1 {
		t.Errorf("position_ids = %+v", ids)
	}
	if err := ids.ReadFloat32(make([]float32, 6)); err == nil || !strings.Contains(err.Error(), "found I64") {
		t.Errorf("reading I64 as float32: %v", err)
	}
	if r.Metadata()["format"] != "pt" {
		t.Errorf("metadata = %v", r.Metadata())
	}
}

// Each 16-bit pattern comes back from a round trip: reading is exact, and
// rounding an exact value changes nothing.
func TestSixteenBitRoundTrip(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		if f := float16to32(h); f == f && float32to16(f) != h {
			t.Fatalf("float16 %#04x → %g → %#04x", h, f, float32to16(f))
		} else if f != f && (h&0x7c00 != 0x7c00 || float32to16(f)&0x7fff <= 0x7c00) {
			t.Fatalf("float16 %#04x: NaN lost", h)
		}
		b := math.Float32frombits(uint32(h) << 16)
		if b == b && float32toBF16(b) != h || b != b && float32toBF16(b)&0x7fff <= 0x7f80 {
			t.Fatalf("bfloat16 %#04x → %g → %#04x", h, b, float32toBF16(b))
		}
	}
}

func TestGoldenModel(t *testing.T) {
	data, err := os.ReadFile("testdata/golden/sums.json")
	if err != nil {
		t.Fatal(err)
	}
	var sums map[string]float64
	if err := json.Unmarshal(data, &sums); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"single", "sharded"} {
		r := open(t, "testdata/golden/"+dir)
		if len(r.Names()) != len(sums) || !slices.IsSorted(r.Names()) {
			t.Errorf("%s: %d tensors, expected %d in order", dir, len(r.Names()), len(sums))
		}
		for name, want := range sums {
			var sum, size float64
			for _, v := range float32s(t, r, name) {
				sum += float64(v)
				size += math.Abs(float64(v))
			}
			// Sums in float64 differ by their order only.
			if !(math.Abs(sum-want) <= 1e-13*size) {
				t.Errorf("%s: sum of %s = %g, expected %g", dir, name, sum, want)
			}
		}
	}
}

// Written again, the reference writer's files come out byte for byte.
func TestSameBytesAsReference(t *testing.T) {
	for _, path := range []string{"dtypes.safetensors", "single/model.safetensors", "sharded/model-00001-of-00002.safetensors"} {
		path = filepath.Join("testdata/golden", path)
		r := open(t, path)
		out := filepath.Join(t.TempDir(), "out.safetensors")
		copyAll(t, r, out)
		want, _ := os.ReadFile(path)
		got, _ := os.ReadFile(out)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the copy differs", path)
		}
	}
}

func copyAll(t testing.TB, r *Reader, out string) {
	t.Helper()
	var specs []Spec
	for _, name := range r.Names() {
		tensor, _ := r.Tensor(name)
		specs = append(specs, tensor.Spec())
	}
	w, err := CreateFile(out, specs, r.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, name := range r.Names() {
		tensor, _ := r.Tensor(name)
		if err := w.Copy(name, tensor); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// container builds a file from a header as written and bytes of data.
func container(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	return append(b, make([]byte, data)...)
}

// Every way a file can be wrong, with the words that must name it.
var corrupt = []struct {
	name string
	file []byte
	want string
}{
	{"empty", nil, "at least 8 bytes"},
	{"short", []byte("1234567"), "at least 8 bytes"},
	{"html", []byte("<!DOCTYPE html><html></html>"), "not a safetensors file"},
	{"length beyond file", container("{}", 0)[:9], "truncated"},
	{"huge length", binary.LittleEndian.AppendUint64(nil, math.MaxUint64), "not a safetensors file"},
	{"no object", container("[]", 0), "starts with {"},
	{"unfinished JSON", container(`{"a":`, 0), "ends too early"},
	{"two objects", container(`{}{}`, 0), "found more after it"},
	{"invalid UTF-8", container("{\"\xff\":{}}", 0), "not UTF-8"},
	{"duplicate tensor", container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), `key "a" occurs twice`},
	{"duplicate key", container(`{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a": key "dtype" occurs twice`},
	{"unknown dtype", container(`{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`, 4), `known dtype (F32, F16, BF16, …), found "F31"`},
	{"dtype no string", container(`{"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}`, 4), "dtype: expected a string, found 32"},
	{"missing shape", container(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4), "expected keys dtype, shape and data_offsets"},
	{"surplus key", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}`, 4), `found "x"`},
	{"null shape", container(`{"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}}`, 4), "found null"},
	{"null size", container(`{"a":{"dtype":"F32","shape":[null],"data_offsets":[0,4]}}`, 4), "found [null]"},
	{"string size", container(`{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}`, 4), `found ["1"]`},
	{"fraction", container(`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}`, 4), "whole numbers, found [1.5]"},
	{"negative shape", container(`{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}`, 4), "at least 0, found [-1,-1]"},
	{"size overflow", container(`{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}}`, 4), "whole numbers, found [9999"},
	{"product overflow", container(`{"a":{"dtype":"F32","shape":[4294967296,4294967297],"data_offsets":[0,4]}}`, 4), "more elements than memory"},
	{"bytes overflow", container(`{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}`, 0), "more elements than memory"},
	{"oversized offset", container(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 4), "within the file's 4 bytes of data, found 8"},
	{"negative offset", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4), "at least 0"},
	{"backward offsets", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4), "a begin and an end"},
	{"three offsets", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, 8), "a begin and an end"},
	{"wrong shape", container(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), "expected 12 bytes for F32 [3], found 8"},
	{"overlap", container(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), `tensor "b": expected data from offset 8 on, found 4: it overlaps`},
	{"same bytes", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4), "overlaps"},
	{"hole", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12), "belong to no tensor"},
	{"hole at the start", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "belong to no tensor"},
	{"surplus data", container(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 5), "the last bytes belong to no tensor"},
	{"empty name", container(`{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "a name of 1 to"},
	{"control name", container(`{"a\u001b[31m":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "control characters"},
	{"metadata no object", container(`{"__metadata__":[]}`, 0), "__metadata__: expected a JSON object"},
	{"metadata no string", container(`{"__metadata__":{"a":1}}`, 0), `key "a": expected a string, found 1`},
	{"metadata null", container(`{"__metadata__":{"a":null}}`, 0), "expected a string, found null"},
}

func TestCorruptFiles(t *testing.T) {
	for _, c := range corrupt {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "model.safetensors")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("expected an error with %q, found %v", c.want, err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one sentence: %v", err)
			}
		})
	}
}

// Cut anywhere, a good file is refused: each early byte, then ever wider steps.
func TestTruncated(t *testing.T) {
	whole, err := os.ReadFile("testdata/golden/single/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += 1 + n/100 {
		if _, _, err := parseFile(whole[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes, it is accepted", n, len(whole))
		}
	}
}

// Another program that shortens, lengthens or writes to a file while it is read
// leads to one sentence, whatever is read of it.
func TestChangedWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	values := make([]float32, 1000)
	write := func(d DType) *Reader {
		w, err := CreateFile(path, []Spec{{"a", d, []int{1000}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteFloat32("a", values); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		return open(t, path)
	}
	for _, d := range []DType{F32, BF16} {
		for how, change := range map[string]func() error{
			"shortened":  func() error { return os.Truncate(path, 100) },
			"emptied":    func() error { return os.Truncate(path, 0) },
			"lengthened": func() error { return os.Truncate(path, 1<<20) },
			"written to": func() error { return os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)) },
		} {
			r := write(d)
			tensor, _ := r.Tensor("a")
			if err := change(); err != nil {
				t.Fatal(err)
			}
			dir := &Dir{Weights: r}
			for what, read := range map[string]func() error{
				"values": func() error { return tensor.ReadFloat32(make([]float32, 1000)) },
				"bytes":  func() error { return tensor.Read(make([]byte, tensor.bytes)) },
				"copy": func() error {
					w, err := CreateFile(filepath.Join(t.TempDir(), "copy"), []Spec{tensor.Spec()}, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer w.Abort()
					return w.Copy("a", tensor)
				},
				"sum": func() error { _, err := dir.SHA256(t.Context(), nil); return err },
			} {
				if err := read(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "another program writes to it") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s %s, %s: found error %v", d, how, what, err)
				}
			}
		}
	}
	// A file that takes its place by a rename leaves the open one as it is.
	r := write(F32)
	values[0] = 1
	write(F32)
	if got := float32s(t, r, "a"); got[0] != 0 {
		t.Errorf("replaced by another file: found that one's value %g", got[0])
	}
}

func TestIndex(t *testing.T) {
	one := container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)
	for _, c := range []struct{ name, index, want string }{
		{"not JSON", `weights`, "expected a JSON object"},
		{"no map", `{"metadata":{}}`, `"weight_map"`},
		{"empty map", `{"weight_map":{}}`, "found none"},
		{"outside", `{"weight_map":{"a":"../one.safetensors"}}`, "in the same directory"},
		{"absolute", `{"weight_map":{"a":"/one.safetensors"}}`, "in the same directory"},
		{"backslash", `{"weight_map":{"a":"..\\one.safetensors"}}`, "in the same directory"},
		{"pickle", `{"weight_map":{"a":"one.bin"}}`, ".safetensors file"},
		{"number", `{"weight_map":{"a":1}}`, "found 1"},
		{"twice", `{"weight_map":{"a":"one.safetensors","a":"one.safetensors"}}`, "occurs twice"},
		{"no shard", `{"weight_map":{"a":"three.safetensors"}}`, "three.safetensors"},
		{"surplus", `{"weight_map":{"b":"one.safetensors"}}`, `one.safetensors holds "a", which is not in the index`},
		{"elsewhere", `{"weight_map":{"a":"two.safetensors","b":"one.safetensors"}}`, `two.safetensors lacks "a"`},
		{"in both", `{"weight_map":{"a":"one.safetensors","b":"same.safetensors"}}`, "is also in"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range map[string][]byte{"one.safetensors": one, "same.safetensors": one, "two.safetensors": container(`{}`, 0), indexFile: []byte(c.index)} {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("expected an error with %q, found %v", c.want, err)
			}
		})
	}
}

// TestIndexNamesMore: of a tensor that no shard holds an index may speak; it is not
// there.
func TestIndexNamesMore(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"one.safetensors": container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		indexFile:         []byte(`{"weight_map":{"a":"one.safetensors","b":"one.safetensors"}}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, ok := r.Tensor("b"); ok || len(r.Names()) != 1 {
		t.Errorf("found the tensors %v", r.Names())
	}
}

func TestNothingToOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "found neither") {
		t.Errorf("empty directory: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing file opens")
	}
	if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "save_pretrained") {
		t.Errorf("pickle only: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, weightsFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "expected a file of weights, found d") {
		t.Errorf("directory as file: %v", err)
	}
}

// The real model, when at hand.
func TestMiniLM(t *testing.T) {
	dir := os.Getenv("MLPFUSION_MINILM")
	if dir == "" {
		t.Skip("MLPFUSION_MINILM is not set")
	}
	r := open(t, dir)
	var parameters int
	for _, name := range r.Names() {
		if tensor, _ := r.Tensor(name); tensor.DType == F32 {
			parameters += len(float32s(t, r, name))
		}
	}
	if parameters != 22_713_216 {
		t.Errorf("%d parameters, expected 22713216", parameters)
	}
}

func FuzzSafetensors(f *testing.F) {
	for _, c := range corrupt {
		f.Add(c.file)
	}
	for _, path := range []string{"testdata/golden/dtypes.safetensors", "testdata/golden/sharded/model-00001-of-00002.safetensors"} {
		whole, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(whole)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		tensors, _, err := parseFile(file)
		if err != nil {
			return
		}
		// Accepted: the tensors lie in the file, one behind the other to its end.
		all := 0
		for _, tensor := range tensors {
			raw := stored(t, tensor)
			all += len(raw)
			_, size, err := sizeOf(tensor.DType, tensor.Shape)
			if err != nil || size != len(raw) {
				t.Fatalf("%q: %s %v with %d bytes: %v", tensor.Name, tensor.DType, tensor.Shape, len(raw), err)
			}
			if tensor.DType.IsFloat() {
				float32Of(t, tensor)
			}
		}
		if want := len(file) - 8 - int(binary.LittleEndian.Uint64(file)); all != want {
			t.Fatalf("tensors of %d bytes in %d bytes of data", all, want)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":1},"weight_map":{"a":"one.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../one.safetensors"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		weightMap, err := parseIndex(data)
		if err != nil {
			return
		}
		for _, shard := range weightMap {
			if filepath.Dir(filepath.Join("dir", shard)) != "dir" {
				t.Fatalf("shard %q leaves the directory", shard)
			}
		}
	})
}

func BenchmarkReadFloat32(b *testing.B) {
	for _, d := range []DType{F32, F16, BF16} {
		b.Run(fmt.Sprint(d), func(b *testing.B) {
			src, dst := make([]byte, 4<<20), make([]float32, 1<<20)
			b.SetBytes(int64(len(dst) * d.Size()))
			for b.Loop() {
				decodeFloat32(dst, src[:len(dst)*d.Size()], d)
			}
		})
	}
}
