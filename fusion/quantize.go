package fusion

import "mlpfusion/kernel"

// QuantizeInt8 stores a matrix (rows×cols, row-major) in one byte a value and a
// factor for each row: w ≈ scale[r]·q, with scale[r] the row's largest size over
// 127. A value is off by at most half of scale[r]; a row of zeros has scale 0.
// The values must be finite. bfloat16, which needs no factors, is
// kernel.ToBF16: off by at most 2⁻⁹ of the value.
func QuantizeInt8(w []float32, rows, cols int) (q []int8, scale []float32) {
	q, scale = make([]int8, rows*cols), make([]float32, rows)
	for r := range rows {
		scale[r] = kernel.ToInt8(q[r*cols:(r+1)*cols], w[r*cols:(r+1)*cols])
	}
	return q, scale
}

// DequantizeInt8 is the way back: scale[r]·q, rows×cols.
func DequantizeInt8(q []int8, scale []float32, rows, cols int) []float32 {
	w := make([]float32, rows*cols)
	for r := range rows {
		kernel.WidenInt8(w[r*cols:(r+1)*cols], q[r*cols:], scale[r])
	}
	return w
}

// Int8 returns the block with every matrix rounded as QuantizeInt8 stores it
// (rows of an up or gate projection are units, of a down projection outputs);
// biases and P stay. P is not folded: a row's scale then need not span it.
func (b *Block) Int8() *Block {
	c := b.clone()
	c.eachMatrix(func(w []float32, rows, cols int) {
		q, scale := QuantizeInt8(w, rows, cols)
		copy(w, DequantizeInt8(q, scale, rows, cols))
	})
	return c
}
