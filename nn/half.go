package nn

import "mlpfusion/kernel"

// Halve rounds the values to bfloat16 and keeps those only, in half the memory: of a
// matrix or table that is not trained from now on. Products read it as it is.
func (w *Weight) Halve() {
	w.Half = make([]uint16, len(w.Data))
	for i, v := range w.Data {
		w.Half[i] = kernel.ToBF16(v)
	}
	w.Data, w.Frozen = nil, true
}

// mat is the matrix as an operand.
func (w *Weight) mat() kernel.Mat { return kernel.Mat{Data: w.Data, Half: w.Half, Stride: w.Cols} }
