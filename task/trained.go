package task

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"mlpfusion/internal/disk"
)

// TrainedFile is the file of a checkpoint that says which rows it was trained on.
const TrainedFile = "trained_rows.json"

// Digests is a set of rows, by the first 48 bits of their digests, in order.
type Digests []uint64

const digestBytes = 6

func short(digest uint64) uint64 { return digest >> (64 - 8*digestBytes) }

// DigestsOf is the set of the examples.
func DigestsOf(examples []Example) Digests {
	d := make(Digests, len(examples))
	for i := range examples {
		d[i] = short(examples[i].Digest())
	}
	slices.Sort(d)
	return slices.Compact(d)
}

// With is the union of two sets.
func (d Digests) With(other Digests) Digests {
	all := slices.Concat(d, other)
	slices.Sort(all)
	return slices.Compact(all)
}

// Count is the number of the examples that are in the set.
func (d Digests) Count(examples []Example) (n int) {
	for i := range examples {
		if _, ok := slices.BinarySearch(d, short(examples[i].Digest())); ok {
			n++
		}
	}
	return n
}

// trainedRows is the layout of TrainedFile.
type trainedRows struct {
	About   string `json:"about"`
	Rows    int    `json:"rows"`
	Digests string `json:"digests"` // base64 of digestBytes a row, big endian
}

// JSON is the text of TrainedFile.
func (d Digests) JSON() []byte {
	var b []byte
	for _, v := range d {
		for i := range digestBytes {
			b = append(b, byte(v>>(8*(digestBytes-1-i))))
		}
	}
	text, err := json.MarshalIndent(trainedRows{
		"the rows that the model was trained on: the first 48 bits of SHA-256 of each text, a zero byte and its pair",
		len(d), base64.StdEncoding.EncodeToString(b)}, "", "  ")
	if err != nil {
		panic(err) // of strings and a number
	}
	return append(text, '\n')
}

// ReadDigests reads a checkpoint's TrainedFile; without one the set is empty.
func ReadDigests(dir string) (Digests, error) {
	path := filepath.Join(dir, TrainedFile)
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, nil // a GGUF file
	}
	text, err := disk.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var t trainedRows
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("%s: expected the rows that a model was trained on: %w", path, err)
	}
	b, err := base64.StdEncoding.DecodeString(t.Digests)
	if err != nil || len(b) != digestBytes*t.Rows {
		return nil, fmt.Errorf("%s: digests: expected %d rows of %d bytes in base64, found others", path, t.Rows, digestBytes)
	}
	d := make(Digests, t.Rows)
	for i := range d {
		for _, v := range b[i*digestBytes : (i+1)*digestBytes] {
			d[i] = d[i]<<8 | uint64(v)
		}
	}
	if !slices.IsSorted(d) {
		return nil, fmt.Errorf("%s: digests: expected them in order, found others", path)
	}
	return d, nil
}
