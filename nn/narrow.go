package nn

import "mlpfusion/kernel"

// NewHalf returns a zero weight that keeps its values in bfloat16, in half the memory: a
// matrix or a table that is not trained. Products read it as it is.
func NewHalf(rows, cols int) *Weight {
	return &Weight{Half: make([]uint16, rows*cols), Rows: rows, Cols: cols, Frozen: true}
}

// NewInt8 is NewHalf with whole numbers, and a factor for each row, in a quarter of the
// memory.
func NewInt8(rows, cols int) *Weight {
	return &Weight{Int8: make([]int8, rows*cols), Factors: make([]float32, rows), Rows: rows, Cols: cols, Frozen: true}
}

// mat is the matrix as an operand.
func (w *Weight) mat() kernel.Mat {
	return kernel.Mat{Data: w.Data, Half: w.Half, Int8: w.Int8, Factors: w.Factors, Stride: w.Cols}
}

// row returns the values of a row, in tmp if they have to be widened.
func (w *Weight) row(r int, tmp []float32) []float32 {
	m := w.mat().Rows(r, r+1)
	tmp = tmp[:w.Cols]
	switch {
	case m.Half != nil:
		kernel.Widen(tmp, m.Half)
	case m.Int8 != nil:
		kernel.WidenInt8(tmp, m.Int8, m.Factors[0])
	default:
		return m.Data
	}
	return tmp
}

// Len is the number of values.
func (p *Param) Len() int { return max(len(p.Data), len(p.Half), len(p.Int8)) }

// Values returns Data or, of what is kept otherwise, a copy.
func (p *Param) Values() []float32 {
	if p.Data != nil {
		return p.Data
	}
	values := make([]float32, p.Len())
	kernel.Widen(values[:len(p.Half)], p.Half)
	for i, f := range p.Factors {
		kernel.WidenInt8(values[i*p.Cols:(i+1)*p.Cols], p.Int8[i*p.Cols:], f)
	}
	return values
}

// SetRows stores values, which must be finite, as the rows from one on, as the weight
// keeps them.
func (p *Param) SetRows(from int, values []float32) {
	at := from * p.Cols
	switch {
	case p.Half != nil:
		for i, v := range values {
			p.Half[at+i] = kernel.ToBF16(v)
		}
	case p.Int8 != nil:
		for i := 0; i < len(values); i += p.Cols {
			p.Factors[from+i/p.Cols] = kernel.ToInt8(p.Int8[at+i:at+i+p.Cols], values[i:i+p.Cols])
		}
	default:
		copy(p.Data[at:], values)
	}
}
