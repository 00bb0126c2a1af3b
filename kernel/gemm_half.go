package kernel

import "unsafe"

// A right operand of bfloat16 bits is widened where it is packed, a few rows at a time:
// what memory holds, and passes on to the packers, is two bytes an element.

func (m *Mat) len() int {
	if m.Half != nil {
		return len(m.Half)
	}
	return len(m.Data)
}

// size returns the bytes of an element.
func (m *Mat) size() int {
	if m.Half != nil {
		return 2
	}
	return 4
}

func (m *Mat) address(i int) uintptr {
	if m.Half != nil {
		return uintptr(unsafe.Pointer(&m.Half[i]))
	}
	return uintptr(unsafe.Pointer(&m.Data[i]))
}

// lines returns how many of k rows are to be read at once: an even number, or all.
func (m *Mat) lines(k int) int {
	if m.Half != nil {
		return 32
	}
	return k
}

// read returns rows × cols of what m stores, from row r and column c on, and their
// stride: where they lie or, of bfloat16, widened, until the next read.
func (s *Scratch) read(m *Mat, r, c, rows, cols int) (data []float32, stride int) {
	at := r*m.Stride + c
	if m.Half == nil {
		return m.Data[at:], m.Stride
	}
	stride = cols
	if crowded(stride) {
		stride += 16
	}
	data = grow(&s.wide, rows*stride)
	for i := range rows {
		Widen(data[i*stride:i*stride+cols], m.Half[at+i*m.Stride:])
	}
	return data, stride
}
