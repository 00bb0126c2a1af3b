package nn

import "mlpfusion/kernel"

// NewHalf returns a zero weight that keeps its values in bfloat16, in half the memory: a
// matrix or a table that is not trained. Products read it as it is.
func NewHalf(rows, cols int) *Weight {
	return &Weight{Half: make([]uint16, rows*cols), Rows: rows, Cols: cols, Frozen: true}
}

// mat is the matrix as an operand.
func (w *Weight) mat() kernel.Mat { return kernel.Mat{Data: w.Data, Half: w.Half, Stride: w.Cols} }
