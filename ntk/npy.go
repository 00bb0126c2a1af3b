package ntk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// WriteNPY writes the kernel as numpy's array format 1.0 (n×n, little-endian
// float32, row-major), which numpy.load reads.
func WriteNPY(w io.Writer, k *Kernel) error {
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", k.N, k.N)
	// The data begin at a multiple of 64 bytes and the header ends in a newline.
	header += strings.Repeat(" ", 63-(10+len(header))%64) + "\n"
	b := append([]byte(magic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	if _, err := w.Write(append(b, header...)); err != nil {
		return err
	}
	row := make([]byte, 0, 4*k.N)
	for i := range k.N {
		row = row[:0]
		for _, v := range k.Data[i*k.N : (i+1)*k.N] {
			row = binary.LittleEndian.AppendUint32(row, math.Float32bits(v))
		}
		if _, err := w.Write(row); err != nil {
			return err
		}
	}
	return nil
}

const magic = "\x93NUMPY"

var npyHeader = regexp.MustCompile(`^\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9]+), ([0-9]+)\), \} *\n$`)

// ReadNPY reads what WriteNPY and numpy.save write of an n×n float32 array. name
// is for its errors.
func ReadNPY(r io.Reader, name string) (*Kernel, error) {
	fail := func(key, expected string, found any) error {
		return fmt.Errorf("%s: %s: expected %s, found %v", name, key, expected, found)
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:8]) != magic+"\x01\x00" {
		return nil, fail("magic", "a numpy array, format 1.0", strconv.Quote(string(bytes.TrimRight(head[:8], "\x00"))))
	}
	header := make([]byte, binary.LittleEndian.Uint16(head[8:]))
	if n, err := io.ReadFull(r, header); err != nil {
		return nil, fail("header", fmt.Sprintf("%d bytes", len(header)), n)
	}
	found := npyHeader.FindSubmatch(header)
	if found == nil {
		return nil, fail("header", "a float32 matrix in row-major order", strconv.Quote(string(header)))
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil || n > 1<<15 || string(found[1]) != string(found[2]) {
		return nil, fail("shape", "a square matrix of at most 32768 rows", string(found[1])+"×"+string(found[2]))
	}
	k := &Kernel{N: n}
	row := make([]byte, 4*n)
	for i := range n { // grown as rows arrive: the header alone claims no memory
		if _, err := io.ReadFull(r, row); err != nil {
			return nil, fail("data", fmt.Sprintf("%d rows", n), fmt.Sprintf("the file's end in row %d", i))
		}
		for j := range n {
			k.Data = append(k.Data, math.Float32frombits(binary.LittleEndian.Uint32(row[4*j:])))
		}
	}
	if extra, _ := r.Read(row[:min(1, len(row))]); extra > 0 {
		return nil, fail("data", fmt.Sprintf("%d rows", n), "more")
	}
	return k, nil
}
