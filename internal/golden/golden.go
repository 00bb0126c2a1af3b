// Package golden reads, in tests, the tensors that a script of scripts/goldens wrote.
package golden

import (
	"encoding/binary"
	"testing"

	"mlpfusion/checkpoint"
)

// File is an open file of tensors. What it lacks ends the test.
type File struct {
	*checkpoint.Reader
	t testing.TB
}

// Open opens a golden for the time of the test.
func Open(t testing.TB, path string) *File {
	t.Helper()
	r, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return &File{r, t}
}

func (f *File) tensor(name string) *checkpoint.Tensor {
	f.t.Helper()
	x, ok := f.Tensor(name)
	if !ok {
		f.t.Fatalf("golden has no %s", name)
	}
	if x.Elements() == 0 {
		f.t.Fatalf("golden's %s is empty", name)
	}
	return x
}

// Floats returns a tensor of numbers; whole ones are converted.
func (f *File) Floats(name string) []float32 {
	f.t.Helper()
	x := f.tensor(name)
	v := make([]float32, x.Elements())
	if x.DType == checkpoint.I32 {
		for i, n := range f.Ints(name) {
			v[i] = float32(n)
		}
		return v
	}
	if err := x.ReadFloat32(v); err != nil {
		f.t.Fatal(err)
	}
	return v
}

// Ints returns a tensor of 32-bit whole numbers.
func (f *File) Ints(name string) []int32 {
	f.t.Helper()
	x := f.tensor(name)
	if x.DType != checkpoint.I32 {
		f.t.Fatalf("golden's %s: expected I32, found %s", name, x.DType)
	}
	raw := make([]byte, 4*x.Elements())
	if err := x.Read(raw); err != nil {
		f.t.Fatal(err)
	}
	v := make([]int32, x.Elements())
	if _, err := binary.Decode(raw, binary.LittleEndian, v); err != nil {
		f.t.Fatal(err)
	}
	return v
}
