package kernel

import "unsafe"

// A right operand of bfloat16 bits or of whole numbers is widened where it is packed, a
// few rows at a time: what memory holds, and passes on to the packers, is two bytes an
// element, or one.

func (m *Mat) narrow() bool { return m.Half != nil || m.Int8 != nil }

func (m *Mat) len() int {
	switch {
	case m.Half != nil:
		return len(m.Half)
	case m.Int8 != nil:
		return min(len(m.Int8), len(m.Factors)*m.Stride)
	}
	return len(m.Data)
}

// size returns the bytes of an element.
func (m *Mat) size() int {
	switch {
	case m.Half != nil:
		return 2
	case m.Int8 != nil:
		return 1
	}
	return 4
}

func (m *Mat) address(i int) uintptr {
	switch {
	case m.Half != nil:
		return uintptr(unsafe.Pointer(&m.Half[i]))
	case m.Int8 != nil:
		return uintptr(unsafe.Pointer(&m.Int8[i]))
	}
	return uintptr(unsafe.Pointer(&m.Data[i]))
}

// Rows returns the operand that stores only the rows [from, to) of m, whole ones.
func (m Mat) Rows(from, to int) Mat {
	a, b := from*m.Stride, to*m.Stride
	switch {
	case m.Half != nil:
		m.Half = m.Half[a:b]
	case m.Int8 != nil:
		m.Int8, m.Factors = m.Int8[a:b], m.Factors[from:to]
	default:
		m.Data = m.Data[a:b]
	}
	return m
}

// lines returns how many of k rows are to be read at once: an even number, or all.
func (m *Mat) lines(k int) int {
	if m.narrow() {
		return 32
	}
	return k
}

// read returns rows × cols of what m stores, from row r and column c on, and their
// stride: where they lie or, if they are narrow, widened, until the next read.
func (s *Scratch) read(m *Mat, r, c, rows, cols int) (data []float32, stride int) {
	at := r*m.Stride + c
	if !m.narrow() {
		return m.Data[at:], m.Stride
	}
	stride = cols
	if crowded(stride) {
		stride += 16
	}
	data = grow(&s.wide, rows*stride)
	for i := range rows {
		row := data[i*stride : i*stride+cols]
		if m.Half != nil {
			Widen(row, m.Half[at+i*m.Stride:])
		} else {
			WidenInt8(row, m.Int8[at+i*m.Stride:], m.Factors[r+i])
		}
	}
	return data, stride
}
