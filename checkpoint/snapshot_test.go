package checkpoint

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

type state struct {
	Step int     `json:"step"`
	Best float64 `json:"best"`
	Note string  `json:"note"`
}

func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot")
	nan := math.Float32frombits(0x7fc12345)
	sections := []Section{
		{Name: "weights", Float32: []float32{1, float32(math.Copysign(0, -1)), nan, math.SmallestNonzeroFloat32}},
		{Name: "random", Bytes: []byte{0, 255, 7}},
		{Name: "none", Float32: nil},
		{Name: "no bytes", Bytes: []byte{}},
	}
	want := state{7, 0.1, "é<\n\""}
	for range 2 { // the second replaces the first
		if err := SaveSnapshot(path, want, sections); err != nil {
			t.Fatal(err)
		}
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got state
	r, err := LoadSnapshot(path, &got)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("state %+v, expected %+v", got, want)
	}
	again := []Section{}
	for _, s := range sections {
		tensor, ok := r.Tensor(s.Name)
		if !ok || s.Bytes != nil && !bytes.Equal(stored(t, tensor), s.Bytes) {
			t.Fatalf("section %q is missing or differs", s.Name)
		}
		if s.Bytes == nil {
			s.Float32 = float32s(t, r, s.Name)
		}
		again = append(again, s)
	}
	// Saved again from what was loaded, in another order, the bytes are the same.
	slices.Reverse(again)
	if err := SaveSnapshot(path, got, again); err != nil {
		t.Fatal(err)
	}
	if second, _ := os.ReadFile(path); !bytes.Equal(first, second) {
		t.Error("the bytes changed from save to load to save")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}

	wants(t, SaveSnapshot(path, math.NaN(), nil), "state")
	wants(t, SaveSnapshot(path, 1, []Section{{Name: "a"}, {Name: "a"}}), "twice")
	if kept, _ := os.ReadFile(path); !bytes.Equal(first, kept) {
		t.Error("a failed save changed the old snapshot")
	}
	_, err = LoadSnapshot("testdata/golden/single/model.safetensors", &got)
	wants(t, err, `expected a training snapshot of format "mlpfusion-snapshot-1", found format "pt"`)
	_, err = LoadSnapshot(path, new(int))
	wants(t, err, "state: ")
	write(t, path, string(first[:len(first)-1]))
	_, err = LoadSnapshot(path, &got)
	wants(t, err, "truncated")
}
