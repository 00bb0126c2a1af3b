package ntk

import (
	"fmt"
	"math"
)

// Difference says how far a kernel lies from the original's.
type Difference struct {
	Norm     float64 `json:"norm"`     // ‖K_orig‖_F
	Absolute float64 `json:"absolute"` // ‖K − K_orig‖_F
	Relative float64 `json:"relative"` // the same / ‖K_orig‖_F; 0 where that is 0
	// Alignment is the centred kernel alignment, the cosine of the angle between
	// both kernels after the mean of every row and column is taken off (Cortes,
	// Mohri, Rostamizadeh 2012): 1 where they differ by a factor at most, 0 where one of them is constant.
	Alignment float64 `json:"alignment"`
}

// Compare compares a compressed model's kernel with the original's over the same
// examples. An original's kernel is all zeros for an expert that none of them
// passes through; nothing is then relative to it. It reports kernels of two sizes.
func Compare(original, k *Kernel) (Difference, error) {
	if k.N != original.N {
		return Difference{}, fmt.Errorf("ntk: expected two kernels of one size, found %d×%d and %d×%d", original.N, original.N, k.N, k.N)
	}
	var d Difference
	for i, v := range original.Data {
		a, b := float64(v), float64(k.Data[i])
		d.Norm += a * a
		d.Absolute += (a - b) * (a - b)
	}
	d.Norm, d.Absolute = math.Sqrt(d.Norm), math.Sqrt(d.Absolute)
	if d.Norm == 0 {
		return d, nil
	}
	d.Relative = d.Absolute / d.Norm
	a, b := original.centred(), k.centred()
	var ab, aa, bb float64
	for i, v := range a {
		ab += v * b[i]
		aa += v * v
		bb += b[i] * b[i]
	}
	if aa > 0 && bb > 0 {
		d.Alignment = ab / math.Sqrt(aa*bb)
	}
	return d, nil
}

// centred returns the kernel without the means of its rows and columns, H·K·H
// with H = I − 1·1ᵀ/n.
func (k *Kernel) centred() []float64 {
	n := k.N
	rows, cols := make([]float64, n), make([]float64, n)
	var mean float64
	for i := range n {
		for j, v := range k.Data[i*n : (i+1)*n] {
			rows[i] += float64(v) / float64(n)
			cols[j] += float64(v) / float64(n)
		}
		mean += rows[i] / float64(n)
	}
	c := make([]float64, n*n)
	for i := range n {
		for j, v := range k.Data[i*n : (i+1)*n] {
			c[i*n+j] = float64(v) - rows[i] - cols[j] + mean
		}
	}
	return c
}
