package convert

import (
	"io"
	"unsafe"

	"mlpfusion/internal/disk"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// spool is a row of tensors in a temporary file that is gone when closed. The
// zero spool is empty.
type spool struct {
	file *disk.File
	ends []int64 // of each tensor, in bytes
}

func (s *spool) write(x *nn.Tensor) error {
	if s.file == nil {
		f, err := disk.Temporary("mlpfusion-calibration-*")
		if err != nil {
			return err
		}
		s.file = f
	}
	n, err := s.file.Write(asBytes(x.Data))
	s.ends = append(s.ends, s.start(len(s.ends))+int64(n))
	return err
}

// start is where tensor i begins.
func (s *spool) start(i int) int64 {
	if i == 0 {
		return 0
	}
	return s.ends[i-1]
}

// read returns tensor i in buffer's memory or, where that is too small, in new.
func (s *spool) read(i int, buffer []float32) ([]float32, error) {
	n := int(s.ends[i]-s.start(i)) / 4
	if cap(buffer) < n {
		buffer = make([]float32, n)
	}
	buffer = buffer[:n]
	_, err := s.file.ReadAt(asBytes(buffer), s.start(i))
	return buffer, err
}

// readRows returns some rows of tensor i, of which each has cols values, in buffer's
// memory or in new.
func (s *spool) readRows(i int, rows []int32, cols int, buffer []float32) ([]float32, error) {
	if cap(buffer) < len(rows)*cols {
		buffer = make([]float32, len(rows)*cols)
	}
	buffer = buffer[:len(rows)*cols]
	for k, row := range rows {
		if _, err := s.file.ReadAt(asBytes(buffer[k*cols:(k+1)*cols]), s.start(i)+4*int64(row)*int64(cols)); err != nil {
			return nil, err
		}
	}
	return buffer, nil
}

// copy returns the same tensors in a file of their own.
func (s *spool) copy() (c spool, err error) {
	if s.file == nil {
		return c, nil
	}
	if c.file, err = disk.Temporary("mlpfusion-calibration-*"); err == nil {
		_, err = io.Copy(c.file, io.NewSectionReader(s.file, 0, s.start(len(s.ends))))
	}
	c.ends = s.ends
	return c, err
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
	*s = spool{}
}

// states are what passes between two layers, of all batches.
type states struct{ x, encoded spool }

func (s *states) write(x model.State) error {
	if x.Encoded != nil {
		if err := s.encoded.write(x.Encoded); err != nil {
			return err
		}
	}
	return s.x.write(x.X)
}

// read returns batch i's state on the tape.
func (s *states) read(t *nn.Tape, i, hidden int) (x model.State, err error) {
	tensor := func(f *spool) *nn.Tensor {
		x := t.New(int(f.ends[i]-f.start(i))/4/hidden, hidden)
		if err == nil {
			_, err = f.read(i, x.Data)
		}
		return x
	}
	x.X = tensor(&s.x)
	if s.encoded.file != nil {
		x.Encoded = tensor(&s.encoded)
	}
	return x, err
}

func (s *states) copy() (c states, err error) {
	if c.x, err = s.x.copy(); err == nil {
		c.encoded, err = s.encoded.copy()
	}
	return c, err
}

func (s *states) close() {
	s.x.close()
	s.encoded.close()
}

// asBytes is the memory of x.
func asBytes(x []float32) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x))
}
