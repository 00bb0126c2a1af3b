package gguf_test

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"mlpfusion/internal/gguf"
	"mlpfusion/internal/golden"
)

func parse(t *testing.T, data []byte) *gguf.File {
	t.Helper()
	f, err := gguf.Parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func example(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/types.gguf")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDecode: every type as the Python package gguf reads it, bit for bit.
func TestDecode(t *testing.T) {
	data := example(t)
	f := parse(t, data)
	want := golden.Open(t, "testdata/types.safetensors")
	if len(f.Tensors) != 11 {
		t.Fatalf("%d tensors, expected %d", len(f.Tensors), 11)
	}
	for _, x := range f.Tensors {
		if !slices.Equal(x.Shape, []int{3, 512}) {
			t.Errorf("%s: shape %v", x.Name, x.Shape)
		}
		got := make([]float32, x.Elements())
		x.Type.Decode(got, data[x.Offset:][:x.Type.Bytes(len(got))])
		golden.Near(t, x.Name, got, want.Floats(x.Name), 0)
	}
}

func TestMetadata(t *testing.T) {
	data := example(t)
	f := parse(t, data)
	// A file of the metadata alone says the same.
	header, err := io.ReadAll(f.Header(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*gguf.File{f, parse(t, header)} {
		if v, ok, err := gguf.Get[string](f, "general.architecture"); v != "llama" || !ok || err != nil {
			t.Errorf("architecture %q %v %v", v, ok, err)
		}
		if v, _, err := gguf.Get[bool](f, "a.bool"); !v || err != nil {
			t.Errorf("bool %v %v", v, err)
		}
		if v, _, err := gguf.Get[int64](f, "a.int8"); v != -3 || err != nil {
			t.Errorf("int8 %v %v", v, err)
		}
		if v, _, err := gguf.Get[int64](f, "a.uint64"); v != 1<<40 || err != nil {
			t.Errorf("uint64 %v %v", v, err)
		}
		if v, _, err := gguf.Get[float64](f, "a.float64"); v != 0.1 || err != nil {
			t.Errorf("float64 %v %v", v, err)
		}
		if v, _, err := gguf.Get[[]string](f, "a.texts"); !slices.Equal(v, []string{"ab", "ü", ""}) || err != nil {
			t.Errorf("texts %q %v", v, err)
		}
		if v, _, err := gguf.Get[[]int64](f, "a.numbers"); !slices.Equal(v, []int64{1, -2, 3}) || err != nil {
			t.Errorf("numbers %v %v", v, err)
		}
		if v, _, err := gguf.Get[[]float64](f, "a.floats"); !slices.Equal(v, []float64{0.5, -1.5}) || err != nil {
			t.Errorf("floats %v %v", v, err)
		}
		if _, ok, err := gguf.Get[string](f, "b"); ok || err != nil {
			t.Errorf("missing: %v %v", ok, err)
		}
		if _, _, err := gguf.Get[string](f, "a.numbers"); err == nil || err.Error() != `key "a.numbers": expected text, found a list of whole numbers` {
			t.Errorf("wrong type: %v", err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	whole := example(t)
	change := func(at int, with ...byte) []byte {
		data := slices.Clone(whole)
		copy(data[at:], with)
		return data
	}
	typeOf := bytes.Index(whole, []byte("Q4_K")) + 4 + 4 + 16
	for _, c := range []struct {
		data []byte
		say  string
	}{
		{nil, "expected 4 more bytes, found 0"},
		{[]byte("PK\x03\x04"), "this is no GGUF file"},
		{change(4, 1), "expected version 2 or 3"},
		{change(4, 0, 0, 0, 3), "little endian"},
		{change(8, 0xff, 0xff, 0xff), "expected at most 1048576 tensors, found 16777215"},
		{change(24, 0xff, 0xff, 0xff, 0xff), "expected at most 67108864 bytes of text"},
		{change(24, 0xff, 0xff, 0xff), "the file is truncated"},
		{change(typeOf, 10), `tensor "Q4_K": expected one of the types F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16, found Q2_K`},
		{change(typeOf, 77), `found type 77`},
		{whole[:len(whole)-100], "the file is truncated"},
	} {
		if _, err := gguf.Parse(bytes.NewReader(c.data), int64(len(c.data))); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("found error %v, expected %s", err, c.say)
		}
	}
	for n := 0; n < len(whole)-32; n += 1 + n/50 {
		if _, err := gguf.Parse(bytes.NewReader(whole[:n]), int64(n)); err == nil {
			t.Fatalf("cut to %d of %d bytes, it is accepted", n, len(whole))
		}
	}
}

// FuzzParse: whatever is accepted lies within the file and can be decoded.
func FuzzParse(f *testing.F) {
	if data, err := os.ReadFile("testdata/types.gguf"); err == nil {
		f.Add(data)
		f.Add(data[:700])
	}
	f.Add([]byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := gguf.Parse(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for _, x := range file.Tensors {
			n := x.Elements()
			x.Type.Decode(make([]float32, n), data[x.Offset:][:x.Type.Bytes(n)])
		}
		header, err := io.ReadAll(file.Header(bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := gguf.Parse(bytes.NewReader(header), int64(len(header))); err != nil || len(again.Values) != len(file.Values) {
			t.Fatalf("its metadata alone: %v", err)
		}
	})
}
