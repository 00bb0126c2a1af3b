package ntk_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"mlpfusion/ntk"
)

// TestNPY: the bytes are numpy's, and are read back.
func TestNPY(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "goldens", "bert.npy"))
	if err != nil {
		t.Fatal(err)
	}
	k := &ntk.Kernel{N: 8, Data: openGolden(t, "bert").Floats("adam.0")}
	var b bytes.Buffer
	if err := ntk.WriteNPY(&b, k); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("wrote %q…, numpy writes %q…", b.Bytes()[:128], want[:128])
	}
	got, err := ntk.ReadNPY(bytes.NewReader(want), "bert.npy")
	if err != nil || got.N != k.N || !slices.Equal(got.Data, k.Data) {
		t.Errorf("read %v, error %v", got, err)
	}
}

// FuzzNPY: any input is read or refused, and what was read is written as it was.
func FuzzNPY(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "goldens", "bert.npy"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add(golden[:200])
	f.Add(append(slices.Clone(golden), 0))
	f.Add(bytes.Replace(golden, []byte("(8, 8)"), []byte("(8, 4)"), 1))
	f.Add(bytes.Replace(golden, []byte("<f4"), []byte("<f8"), 1))
	f.Add(bytes.Replace(golden, []byte("(8, 8)"), []byte("(0, 0)"), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ntk.ReadNPY(bytes.NewReader(data), "fuzz")
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := ntk.WriteNPY(&b, k); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes()[b.Len()-4*k.N*k.N:], data[len(data)-4*k.N*k.N:]) {
			t.Error("the values have changed")
		}
	})
}
